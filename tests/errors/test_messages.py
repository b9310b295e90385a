"""Messages hold what users search for (PyTorch's words), what was given, and how to go on."""

from __future__ import annotations

import re

import pytest
from wrong_programs import outcome

MESSAGES = {
    # products and layers: both shapes
    "torch.ones(2, 3) @ torch.ones(4, 5)": ["mat1 and mat2 shapes cannot be multiplied (2x3 and "
                                            "4x5)"],
    "nn.Linear(4, 5)(torch.ones(2, 3))": ["mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)",
                                          "expects inputs with 4 features"],
    "nn.Conv2d(3, 4, 3)(torch.ones(2, 5, 8, 8))": ["weight of size [4, 3, 3, 3]",
                                                   "expected input[2, 5, 8, 8] to have 3 channels"],
    "nn.Linear(4, 5)(torch.ones(2, 4).double())": ["to have the same dtype", "double != float",
                                                   ".to(dtype)"],
    "torch.ones(2, 2) @ torch.ones(2, 2).half()": ["same dtype, but got: float != c10::Half"],
    "torch.ones(2, 3) + torch.ones(4)": ["The size of tensor a (3) must match the size of tensor b "
                                         "(4) at non-singleton dimension 1", "[2, 3] and [4]"],
    "torch.ones(2).copy_(torch.ones(3))": ["(2)", "(3)", "[2] and [3]"],
    "F.linear(torch.ones(2, 3), torch.ones(5, 3), torch.ones(4))": [
        "The expanded size of the tensor (5) must match the existing size (4)"],
    "torch.cat([torch.ones(2, 3), torch.ones(2, 4)])": [
        "Sizes of tensors must match except in dimension 0. Expected size 3 but got size 4 for "
        "tensor number 1 in the list", "[2, 3]", "[2, 4]"],
    "torch.ones(2, 3).view(4)": ["shape '[4]' is invalid for input of size 6"],
    "torch.ones(2, 3).view(2.0, 3)": ["tuple of ints", "float", "pos 0"],
    "torch.ones(4).as_strided((3, 3), (3, 1))": ["out of bounds for storage of size 16"],
    # indices
    "F.cross_entropy(torch.ones(4, 10), torch.tensor([1, 2, 3, 10]))": [
        "Target 10 is out of bounds.", "[4, 10]", "0 to 9"],
    "F.cross_entropy(torch.ones(4, 10), torch.tensor([1, 2, 3, -1]))": ["Target -1 is out of "
                                                                        "bounds."],
    "F.nll_loss(torch.ones(4, 10), torch.tensor([1, 2, 3, -5]))": ["Target -5 is out of bounds."],
    "nn.Embedding(3, 4)(torch.tensor([3]))": ["index out of range in self", "index 3", "[3, 4]"],
    "nn.Embedding(3, 4)(torch.tensor([-1]))": ["index out of range in self", "index -1"],
    "F.one_hot(torch.tensor([3]), 3)": ["Class values must be smaller than num_classes", "3"],
    "F.one_hot(torch.tensor([-1]), 3)": ["Class values must be non-negative", "-1"],
    "torch.ones(3).gather(0, torch.tensor([3]))": ["index 3 is out of bounds for dimension 0 with "
                                                   "size 3"],
    "torch.ones(3).gather(0, torch.tensor([-1]))": ["index -1 is out of bounds for dimension 0"],
    "torch.ones(3, 4)[torch.tensor([0, 1]), torch.tensor([0, 4])]": [
        "index 4 is out of bounds for dimension 1 with size 4"],
    "torch.ones(3)[torch.tensor([-4])]": ["index -4 is out of bounds for dimension 0 with size 3"],
    "torch.ones(3)[3]": ["index 3 is out of bounds for dimension 0 with size 3"],
    "torch.ones(2, 3).sum(2)": ["Dimension out of range (expected to be in range of [-2, 1], but "
                                "got 2)"],
    # arguments
    "torch.softmax(torch.ones(2), 'a')": ["softmax(): argument 'dim'", "must be int, not str"],
    "torch.exp(np.ones(2))": ["exp(): argument 'input' (position 1) must be Tensor, not "
                              "numpy.ndarray",
                              "torch.from_numpy"],
    "torch.add([1, 2], torch.ones(2))": ["must be Tensor", "not list", "torch.tensor(...)"],
    "torch.sum(torch.ones(2), dmi=0)": ["unexpected keyword argument 'dmi'", "did you mean 'dim'"],
    "torch.zeros(2, dtpye=torch.float32)": ["zeros() got an unexpected keyword argument 'dtpye'",
                                            "did you mean 'dtype'"],
    "torch.randn(2, requiresgrad=True)": ["did you mean 'requires_grad'"],
    "torch.ones(2, device='cuda')": ["Torch not compiled with CUDA enabled", "'cuda'",
                                     "torch.cuda.is_available()"],
    "torch.cuda.set_device(0)": ["Torch not compiled with CUDA enabled"],
    "torch.device('cpuu')": ["device string: cpuu", "did you mean 'cpu'"],
    "torch.tensor(None)": ["Could not infer dtype of NoneType"],
    "torch.tensor([torch.ones(2), torch.ones(2)])": ["only one element tensors can be converted to "
                                                     "Python scalars", "torch.stack"],
    "torch.ones(2).item()": ["a Tensor with 2 elements cannot be converted to Scalar", "[2]"],
    "bool(torch.ones(2))": ["Boolean value of Tensor with more than one value is ambiguous"],
    # arithmetic and memory
    "torch.tensor([1]) // torch.tensor([0])": ["ZeroDivisionError"],
    "torch.tensor([2]) ** -1": ["Integers to negative integer powers are not allowed."],
    "torch.ones(2) + (1 << 70)": ["int too big to convert"],
    "torch.ones(0).max()": ["Expected reduction dim to be specified for input.numel() == 0"],
    "torch.zeros(2, -3)": ["negative dimension -3", "[2, -3]"],
    "torch.empty(1 << 45)": ["can't allocate memory", "131072.00 GiB", "the machine has"],
    "torch.empty(1 << 40, 1 << 40)": ["Storage size calculation overflowed"],
    "F.binary_cross_entropy(torch.ones(4) * 2, torch.ones(4))": [
        "all elements of input should be between 0 and 1", "with_logits"],
    # autograd
    "nn.Parameter(torch.ones(2).long())": ["Only Tensors of floating point and complex dtype can "
                                           "require gradients", "requires_grad=False"],
    "torch.ones(2, requires_grad=True).add_(1)": ["a leaf Variable that requires grad is being "
                                                  "used in an in-place operation", "no_grad()"],
    "torch.ones(2, requires_grad=True)[0].fill_(1)": ["a view of a leaf Variable that requires "
                                                      "grad is being used in an in-place "
                                                      "operation"],
    "(torch.ones(2, requires_grad=True) * 2).backward()": ["grad can be implicitly created only "
                                                           "for scalar outputs"],
    "torch.ones(2).sum().backward()": ["does not require grad and does not have a grad_fn"],
    "twice((torch.ones(2, requires_grad=True) ** 2).sum())": [
        "Trying to backward through the graph a second time", "retain_graph=True"],
    "changed(torch.ones(2, requires_grad=True))": [
        "has been modified by an inplace operation", "loss = (y * y).sum()", "y.add_(1)"],
    "setattr(torch.ones(2, requires_grad=True), 'grad', torch.ones(3))": ["[3]", "[2]"],
    # modules and checkpoints
    "nn.Linear(2, 2).load_state_dict({'weight': torch.ones(3, 2), 'b': torch.ones(1)})": [
        "size mismatch for weight", "[3, 2]", "[2, 2]", 'Missing key(s) in state_dict: "bias"',
        'Unexpected key(s) in state_dict: "b"'],
    "uninitialised(torch)": ["cannot assign module before Module.__init__() call"],
    "torch.load(evil(torch))": ["system"],
}


@pytest.mark.parametrize("text", MESSAGES)
def test_message(torch, text):
    error = outcome(torch, text)
    assert error is not None
    for phrase in MESSAGES[text]:
        assert phrase in str(error)
    assert not re.search(r"-46116860\d+", str(error))  # an index as kernels see it
