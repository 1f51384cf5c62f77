"""What torch.compile must be told."""

from collections.abc import Callable
from typing import TypeVar

Function = TypeVar('Function', bound=Callable)


def while_compiling(function: Function) -> Function:
    """Has compiled code call a function while it is compiled and keep the result: decorator.

    As torch.compiler.assume_constant_result, which would import the compiler for everybody.
    """
    vars(function)['_dynamo_marked_constant'] = True
    return function
