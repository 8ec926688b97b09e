"""Trunks and tails of every family beside mmpretrain's whole backbones."""
import pytest
import torch
from families import PUBLISHED, TINY, build_eval, scatter, whole_feature


def renamed(state, names):
    """The whole backbone's weights under the trunk's other names too."""
    return dict(
        state, **{
            new + key[len(old):]: value
            for new, old in names.items()
            for key, value in state.items() if key.startswith(f'{old}.')
        })


def load(module, state):
    """Every weight of ``module`` is in ``state``, under its own name."""
    missing = module.load_state_dict(state, strict=False).missing_keys
    # mmpretrain's V2 makes these anew.
    assert not [key for key in missing if 'relative_' not in key]


@torch.no_grad()
def check_equality(family):
    whole = scatter(build_eval(family['whole']))
    trunk, tail = build_eval(family['trunk']), build_eval(family['tail'])
    state = whole.state_dict()
    names = getattr(tail, 'trunk_names', {})
    load(trunk, renamed(state, names))
    load(tail, state)
    used = {
        *tail.state_dict(), *trunk.state_dict(),
        *(key for key in state
          if key.startswith(tuple(f'{old}.' for old in names.values())))
    }
    assert set(state) <= used
    x = torch.randn(2, 3, family['size'], family['size'])
    feature, expected = tail(trunk(x)[-1]), whole_feature(whole, x)
    assert feature.shape == (2, tail.out_channels)
    assert expected.std() > 1e-3
    torch.testing.assert_close(feature, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', TINY)
def test_trunk_and_full_expert_are_the_whole_backbone(name):
    check_equality(TINY[name])


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_trunk_and_full_expert_are_the_whole_backbone(name):
    check_equality(PUBLISHED[name])
