"""A convolutional network for 32x32 colour images, in the older style: Variable and F.relu."""

import flambeau as torch
import flambeau.nn.functional as F
from flambeau.autograd import Variable

torch.manual_seed(0)


class SimpleCNN(torch.nn.Module):
    """(N, 3, 32, 32) -> (N, 10)."""

    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 18, kernel_size=3, stride=1, padding=1)
        self.pool = torch.nn.MaxPool2d(kernel_size=2, stride=2, padding=0)
        self.fc1 = torch.nn.Linear(18 * 16 * 16, 64)
        self.fc2 = torch.nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))      # (N, 18, 32, 32)
        x = self.pool(x)               # (N, 18, 16, 16)
        x = x.view(-1, 18 * 16 * 16)   # (N, 4608)
        x = F.relu(self.fc1(x))
        return self.fc2(x)


net = SimpleCNN()
print(net)
print(sum(parameter.numel() for parameter in net.parameters()), "parameters")
loss = torch.nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(net.parameters(), lr=0.0005)

inputs = Variable(torch.randn(16, 3, 32, 32))
labels = Variable(torch.randint(0, 10, (16,)))
print(net(inputs).size(), net(inputs)[0], sep="\n")

for step in range(5):
    optimizer.zero_grad()
    outputs = net(inputs)
    loss_size = loss(outputs, labels)
    loss_size.backward()
    optimizer.step()
    print(f"step {step}: loss = {loss_size.item():.4f}")

predicted = net(inputs).max(1)[1]
print("right:", (predicted == labels).sum().item(), "of", len(labels))
