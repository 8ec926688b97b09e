import torch
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper as _AmpOptimWrapper
from mmengine.optim import OptimWrapper
from mmpretrain.registry import OPTIM_WRAPPERS

from ride_mm.utils.errors import UserError


@OPTIM_WRAPPERS.register_module()
class AmpOptimWrapper(_AmpOptimWrapper):
    """Automatic mixed precision, also on the CPU, in bfloat16.

    Replaces mmengine's wrapper of the same name, and equals it on every other
    device. bfloat16 has the range of fp32 and needs no loss scaling.

    Args:
        loss_scale (float | str | dict): See mmengine; no effect on the CPU.
            Defaults to "dynamic".
        dtype (str | torch.dtype, optional): On the CPU only "bfloat16".
            Defaults to None, the default of the device.
        **kwargs: Other options of mmengine's wrapper.

    Raises:
        UserError: If the device is the CPU and ``dtype`` is not bfloat16.
    """

    def __init__(self, loss_scale='dynamic', dtype=None, **kwargs) -> None:
        if get_device() != 'cpu':
            super().__init__(loss_scale=loss_scale, dtype=dtype, **kwargs)
            return
        if dtype not in (None, 'bfloat16', torch.bfloat16):
            raise UserError(
                f'optim_wrapper.dtype={dtype}: on a CPU, mixed precision needs "bfloat16"'
            )
        kwargs.pop('use_fsdp', None)
        OptimWrapper.__init__(self, **kwargs)
        self.cast_dtype = torch.bfloat16
        self._scale_update_param = None
        self.loss_scaler = torch.amp.GradScaler('cpu', enabled=False)
