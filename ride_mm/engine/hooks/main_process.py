from collections.abc import Callable
from typing import TypeVar

from mmengine.dist import broadcast_object_list, is_main_process

from ride_mm.utils.errors import UserError

T = TypeVar('T')


def on_main_process(function: Callable[[], T]) -> T:
    """Call a function in the main process; all processes return its result.

    Raises:
        UserError: In all processes, if the function raises one or an OSError.
    """
    answer: list = [None, None]
    if is_main_process():
        try:
            answer[0] = function()
        except UserError as error:
            answer[1] = error
        except OSError as error:
            answer[1] = UserError(str(error))
    broadcast_object_list(answer)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]
