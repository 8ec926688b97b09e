from mmpretrain.models import LoRAModel
from torch import nn

from ride_mm.utils.errors import UserError


def refuse_lora(neck: dict, head: dict) -> None:
    """Refuse LoRA around parts that a RIDEClassifier accesses or sizes itself.

    Args:
        neck (dict): Config of the neck.
        head (dict): Config of the head.

    Raises:
        UserError: If one of these is a :class:`mmpretrain.models.LoRAModel`.
    """
    parts = {'neck': neck, 'head': head}
    for name in ('classifier', 'router'):
        parts[f'head.{name}'] = head.get(name) or {}
    for name, part in parts.items():
        if 'LoRAModel' in str(part.get('type')):
            raise UserError(
                f'model.{name}.type="LoRAModel" is not supported: wrap '
                'model.backbone or model.neck.expert'
            )


def save_lora_whole(model: nn.Module) -> None:
    """Make checkpoints hold all weights of a model that uses LoRA.

    Each :class:`mmpretrain.models.LoRAModel` takes every key without
    ``.lora_`` out of the state dict of the whole model, those of the parts
    before it included, and hides that they are missing when it is loaded. Its
    own other weights are needed as well: they may not come from a file, and
    BatchNorm statistics change in training.

    Args:
        model (nn.Module): The whole model.
    """
    for module in model.modules():
        if isinstance(module, LoRAModel):
            module._state_dict_hooks.clear()
            module._load_state_dict_post_hooks.clear()
