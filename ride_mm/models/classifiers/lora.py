from mmpretrain.models import LoRAModel
from torch import nn

from ride_mm.utils.errors import UserError


def refuse_lora(neck: dict, head: dict) -> None:
    """Refuse LoRA around parts that RIDEClassifier accesses or sizes itself.

    Args:
        neck (dict): Config of the neck.
        head (dict): Config of the head.

    Raises:
        UserError: If neck, head, classifier or router is a
            :class:`mmpretrain.models.LoRAModel`.
    """
    parts = {'neck': neck, 'head': head}
    for name in ('classifier', 'router'):
        parts[f'head.{name}'] = head.get(name) or {}
    for name, part in parts.items():
        if 'LoRAModel' in str(part.get('type')):
            raise UserError(
                f'model.{name}.type="LoRAModel" is not supported: wrap model.backbone or '
                'model.neck.expert'
            )


def save_lora_whole(model: nn.Module) -> None:
    """Save all weights of a model that uses LoRA, not only the adapters.

    A :class:`mmpretrain.models.LoRAModel` removes all keys without ``.lora_``
    from the state dict, including those of other parts of the model, and hides
    that they are missing when a checkpoint is loaded. They are needed: frozen
    weights may not come from a file, and BatchNorm statistics change in
    training.

    Args:
        model (nn.Module): The whole model.
    """
    for module in model.modules():
        if isinstance(module, LoRAModel):
            module._state_dict_hooks.clear()
            module._load_state_dict_post_hooks.clear()
