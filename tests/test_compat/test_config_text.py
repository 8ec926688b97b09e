import mmengine.config.config as mmengine_config
from mmengine.config import Config

from ride_mm.compat.config_text import LastFormatted


def test_a_config_is_formatted_when_it_has_changed(monkeypatch):
    formatted = []

    def format_code(code, **style):
        formatted.append(style['style_config'])
        return code.replace('=', ' = '), True

    monkeypatch.setattr(mmengine_config, 'FormatCode', LastFormatted(format_code))
    cfg = Config(dict(a=1))
    assert cfg.pretty_text == cfg.pretty_text == 'a = 1'
    assert len(formatted) == 1
    cfg.a = 2
    assert cfg.pretty_text == 'a = 2'
    assert len(formatted) == 2
