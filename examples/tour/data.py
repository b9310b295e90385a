"""Datasets and loaders: batches in order, shuffled by a seed, and a dataset class of one's own."""

import flambeau as torch
from flambeau.utils.data import DataLoader, Dataset, TensorDataset

torch.manual_seed(0)

x = torch.arange(20, dtype=torch.float32).view(10, 2)
y = torch.arange(10)
dataset = TensorDataset(x, y)
print(len(dataset), dataset[3])

for inputs, labels in DataLoader(dataset, batch_size=4):
    print(inputs.shape, labels)
for _ in range(2):
    print([labels.tolist() for _, labels in DataLoader(dataset, batch_size=4, shuffle=True)])

generator = torch.Generator().manual_seed(42)
loader = DataLoader(dataset, batch_size=3, shuffle=True, drop_last=True, generator=generator)
print(len(loader), [labels.tolist() for _, labels in loader])


class Squares(Dataset):
    """The numbers below n with their squares, as dictionaries."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if not 0 <= index < self.n:
            raise IndexError(index)
        return {"number": index, "square": float(index * index), "name": f"item {index}"}


for batch in DataLoader(Squares(5), batch_size=2):
    print(batch)
