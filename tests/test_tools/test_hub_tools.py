"""Models as folders to share: tools/push.py and tools/pull.py."""

import shutil
import subprocess

import huggingface_hub
import numpy as np
import pytest
import torch
from conftest import ROOT, load_tool
from mmengine.config import Config
from mmpretrain import get_model
from mmpretrain.registry import MODELS

from ride_mm.utils.errors import UserError

push, pull = load_tool('tools/push.py'), load_tool('tools/pull.py')


@pytest.fixture
def trained(tmp_path):
    """A config, and a checkpoint with names of classes."""
    config, checkpoint = tmp_path / 'digits.py', tmp_path / 'epoch_1.pth'
    config.write_text(f"_base_ = '{ROOT}/configs/ride_r32_digits_lt.py'\nload_from = 'x.pth'\n")
    cfg = Config.fromfile(config)
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    meta = dict(dataset_meta=dict(classes=[f'digit {i}' for i in range(10)]))
    torch.save(dict(meta=meta, state_dict=model.state_dict()), checkpoint)
    return str(config), str(checkpoint)


def test_there_and_back(trained, tmp_path, capsys):
    pushed, pulled = str(tmp_path / 'a/pushed'), str(tmp_path / 'pulled')
    push.main([*trained, pushed])
    pull.main([pushed, pulled])
    assert capsys.readouterr().out.endswith('config.py (a program: read it), README.md\n')
    model = get_model(f'{pulled}/config.py', pretrained=f'{pulled}/model.safetensors')
    assert model._dataset_meta['classes'][7] == 'digit 7' and 'load_from' not in model._config
    expected = torch.load(trained[1], weights_only=True)['state_dict']
    assert model.state_dict().keys() == expected.keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    subprocess.run(['sha256sum', '--check', '--quiet', 'SHA256SUMS'], cwd=pulled, check=True)
    for tool, args in ((push, [*trained, pushed]), (pull, [pushed, pulled])):
        with pytest.raises(UserError, match='exists and is not overwritten'):
            tool.main(args)


@pytest.mark.parametrize('name', ['model.safetensors', 'config.py', 'README.md', 'SHA256SUMS'])
def test_a_changed_or_missing_file(trained, tmp_path, name):
    pushed = tmp_path / 'pushed'
    push.main([*trained, str(pushed)])
    content = (pushed / name).read_bytes()
    (pushed / name).write_bytes(content[:-3] + b'x\n')
    with pytest.raises(UserError, match=f'pushed: {name} differs|README.md is missing, or not'):
        pull.main([str(pushed), str(tmp_path / 'pulled')])
    (pushed / name).unlink()
    with pytest.raises(UserError, match='expected a model of ride-mm push, but'):
        pull.main([str(pushed), str(tmp_path / 'pulled')])
    assert not (tmp_path / 'pulled').exists()


def test_accuracy_in_the_model_card(trained, tmp_path):
    test, file = load_tool('tools/test.py'), str(tmp_path / 'predictions.npz')
    names = f'test_dataloader.dataset.metainfo.classes={[f"digit {i}" for i in range(10)]}'
    test.main([*trained, '--out', file, '--work-dir', str(tmp_path), '--cfg-options', names])
    push.main([*trained, str(tmp_path / 'pushed'), '--predictions', file])
    card = (tmp_path / 'pushed/README.md').read_text()
    with np.load(file) as arrays:
        accuracy = np.mean(arrays['pred_score'].argmax(1) == arrays['gt_label'])
    assert f'\n| {100 * accuracy:.1f} | ' in card and 'Accuracy on 440 test images' in card
    other = str(tmp_path / 'other.pth')
    shutil.copy(trained[1], other)
    with open(other, 'ab') as appended:
        appended.write(b'0')
    with pytest.raises(UserError, match='predictions.npz is not of .*other.pth'):
        push.main([trained[0], other, str(tmp_path / 'x'), '--predictions', file])


def test_the_hub(trained, tmp_path, monkeypatch, capsys):
    """A folder takes the place of the hub."""
    hub = tmp_path / 'hub'

    def upload(self, repo_id, folder_path):
        shutil.copytree(folder_path, hub / repo_id)
        return huggingface_hub.CommitInfo(
            commit_url=f'https://huggingface.co/{repo_id}/commit/1', commit_message='', oid='1',
            commit_description='',
        )  # fmt: skip

    def download(repo_id, revision, local_dir, allow_patterns):
        assert revision == 'v1'
        for name in allow_patterns:
            shutil.copy(hub / repo_id / name, local_dir)

    monkeypatch.setattr(huggingface_hub.HfApi, 'create_repo', lambda *args, **kwargs: None)
    monkeypatch.setattr(huggingface_hub.HfApi, 'upload_folder', upload)
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', download)
    push.main([*trained, 'hf://me/digits'])
    assert capsys.readouterr().out.endswith('https://huggingface.co/me/digits/commit/1\n')
    pull.main(['hf://me/digits@v1', str(tmp_path / 'pulled')])
    assert '# me/digits\n' in (tmp_path / 'pulled/README.md').read_text()
    with pytest.raises(UserError, match='hf://me/none: FileNotFoundError: '):
        pull.main(['hf://me/none@v1', str(tmp_path / 'x')])
    assert not (tmp_path / 'x').exists()
