"""A small residual network on scikit-learn's digits, to be trained by `traincast run`."""

import torch
from sklearn.datasets import load_digits
from torch import nn

images, labels = (torch.tensor(part) for part in load_digits(return_X_y=True))


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm, self.past = nn.BatchNorm2d(outputs), nn.Conv2d(inputs, outputs, 1)

    def forward(self, x):
        return nn.functional.relu(self.norm(self.conv(x)) + self.past(x))


def net():
    blocks = [Block(a, b) for a, b in [(1, 32), (32, 32), (32, 64), (64, 64), (64, 64)]]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def batches(step, samples):
    chosen = torch.randint(len(labels), (samples,), generator=torch.Generator().manual_seed(step))
    return images[chosen].float().reshape(-1, 1, 8, 8) / 16, labels[chosen]


loss = nn.functional.cross_entropy
