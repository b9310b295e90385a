"""Small models for measuring, written once for any framework with PyTorch's API.

`MODELS[name](T)` gives a function that runs one training step and returns the loss.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["MODELS", "bert_model", "bert_small", "lstm", "resnet18", "resnet18_model"]


def resnet18_model(T, classes: int = 1000, channels: int = 3, small_images: bool = False):
    """ResNet-18 (He et al. 2015); for small images it begins with a 3 x 3 convolution that keeps
    their size, as in the paper's section on CIFAR-10."""
    nn = T.nn

    class Block(nn.Module):
        def __init__(self, inner: int, outer: int, stride: int):
            super().__init__()
            self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outer)
            self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outer)
            self.relu = nn.ReLU()
            self.down = nn.Identity() if stride == 1 and inner == outer else nn.Sequential(
                nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

        def forward(self, x):
            y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            return self.relu(y + self.down(x))

    layers = [nn.Conv2d(channels, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
              nn.MaxPool2d(3, 2, 1)]
    if small_images:
        layers = [nn.Conv2d(channels, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    for inner, outer in ((64, 64), (64, 128), (128, 256), (256, 512)):
        layers += [Block(inner, outer, 1 if inner == outer else 2), Block(outer, outer, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


def resnet18(T, batch: int = 8, size: int = 112) -> Callable:
    """ResNet-18 on images of size x size, with SGD."""
    model = resnet18_model(T)
    optimizer = T.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x, y = T.randn(batch, 3, size, size), T.randint(0, 1000, (batch,))
    return _step(T, model, optimizer, x, y)


def bert_model(T, words: int = 8192, length: int = 128, width: int = 512):
    """BERT-small (4 layers, 512 wide, 8 heads; Turc et al. 2019) with a word head."""
    nn = T.nn

    class Bert(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(words, width)
            self.places = nn.Parameter(0.02 * T.randn(length, width))
            layer = nn.TransformerEncoderLayer(width, 8, 4 * width, dropout=0.0,
                                               activation="gelu", batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
            self.head = nn.Linear(width, words)

        def forward(self, x):
            return self.head(self.encoder(self.words(x) + self.places)).flatten(0, 1)

    return Bert()


def bert_small(T, batch: int = 8, length: int = 128) -> Callable:
    """BERT-small with AdamW."""
    words = 8192
    model = bert_model(T, words, length)
    optimizer = T.optim.AdamW(model.parameters(), lr=1e-4)
    x = T.randint(0, words, (batch, length))
    return _step(T, model, optimizer, x, x.flatten())


def lstm(T, batch: int = 32, length: int = 64) -> Callable:
    """A language model of two LSTM layers 512 wide, with Adam."""
    nn, words, width = T.nn, 4096, 512

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(words, width)
            self.rnn = nn.LSTM(width, width, 2, batch_first=True)
            self.head = nn.Linear(width, words)

        def forward(self, x):
            return self.head(self.rnn(self.words(x))[0]).flatten(0, 1)

    model = Model()
    optimizer = T.optim.Adam(model.parameters(), lr=1e-3)
    x = T.randint(0, words, (batch, length))
    return _step(T, model, optimizer, x, x.flatten())


def _step(T, model, optimizer, x, y) -> Callable:
    loss_of = T.nn.CrossEntropyLoss()

    def step():
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


MODELS = {"resnet18": resnet18, "bert_small": bert_small, "lstm": lstm}
