from collections.abc import Sequence

from mmpretrain.models.backbones.base_backbone import BaseBackbone

from ride_mm.utils.errors import UserError


class FrozenStages(BaseBackbone):
    """A backbone of a stem and stages, the first of which may be frozen."""

    frozen: Sequence[str] = ()

    def freeze(self, frozen_stages: int, stem: Sequence[str], stages: Sequence[str]) -> None:
        """Freeze the stem and stages; they stay in eval mode.

        Args:
            frozen_stages (int): Number of frozen stages, in addition to the
                stem; 0 freezes only the stem, -1 nothing.
            stem (Sequence[str]): Names of the modules of the stem.
            stages (Sequence[str]): Names of the stages.

        Raises:
            UserError: If there are not as many stages.
        """
        if not -1 <= frozen_stages <= len(stages):
            raise UserError(
                f'{type(self).__name__}: frozen_stages={frozen_stages}, expected -1 to '
                f'{len(stages)}'
            )
        if frozen_stages >= 0:
            self.frozen = [*stem, *stages[:frozen_stages]]
        for name in self.frozen:
            getattr(self, name).requires_grad_(False)

    def train(self, mode: bool = True) -> 'FrozenStages':
        """Set the mode; frozen layers stay in eval mode."""
        super().train(mode)
        for name in self.frozen:
            getattr(self, name).eval()
        return self
