"""A variational graph autoencoder (Kipf & Welling, "Variational graph auto-encoders", 2016) in plain torch.

The encoder is a graph convolutional network of two layers, the decoder the inner products of the nodes' latent vectors:
logits of the whole adjacency matrix, (N, N). Of its entries few are edges, so these are weighted, by `pos_weight`. What
is learned is tested by link prediction: a tenth of the edges are hidden and have to be told from pairs without an edge.

python examples/graph_vae.py
"""

from __future__ import annotations

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import pyvae

NODES, COMMUNITIES = 400, 5
WITHIN, BETWEEN = 0.2, 0.005  # an edge's probability in a community, and from one to another
HIDDEN, LATENT = 32, 16


def draw() -> tuple[Tensor, Tensor]:
    """A stochastic block model: (N, N) bool, symmetric, without loops; and each pair's probability of an edge."""
    community = torch.randint(COMMUNITIES, (NODES,))
    probability = torch.where(community[:, None] == community, WITHIN, BETWEEN)
    upper = (torch.rand(NODES, NODES) < probability).triu(1)
    return upper | upper.T, probability


def split(edges: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The graph without a tenth of its edges; these as pairs (2, E); and as many pairs that have no edge."""
    pairs = torch.triu_indices(NODES, NODES, offset=1)  # each pair once
    pairs = pairs[:, torch.randperm(pairs.shape[1])]
    there = edges[pairs[0], pairs[1]]
    hidden = pairs[:, there][:, : there.sum() // 10]
    absent = pairs[:, ~there][:, : hidden.shape[1]]
    known = edges.clone()
    known[hidden[0], hidden[1]] = known[hidden[1], hidden[0]] = False
    return known, hidden, absent


class Encoder(nn.Module):
    """Mean and log standard deviation of q(z|graph), both (N, LATENT). A node has no features but its identity."""

    def __init__(self, edges: Tensor) -> None:
        super().__init__()
        loops = edges.float() + torch.eye(NODES)
        scale = loops.sum(dim=1).rsqrt()
        self.register_buffer("adjacency", (scale[:, None] * loops * scale).to_sparse())  # D^-1/2 (A + I) D^-1/2
        self.first = nn.Linear(NODES, HIDDEN, bias=False)  # its input would be the identity: the weight is its output
        self.second = nn.Linear(HIDDEN, 2 * LATENT, bias=False)

    def forward(self) -> tuple[Tensor, Tensor]:
        hidden = torch.relu(self.adjacency @ self.first.weight.T)
        mu, logstd = (self.adjacency @ self.second(hidden)).chunk(2, dim=1)
        return mu, logstd


def main(steps: int = 200) -> float:
    """Trains; the area under the ROC curve of the hidden edges, 0.5 for mere guesses."""
    torch.set_num_threads(1)  # networks as small as these are slower on several
    torch.manual_seed(0)
    edges, probability = draw()
    known, hidden, absent = split(edges)
    encoder = Encoder(known)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=0.01)

    target = known | torch.eye(NODES, dtype=torch.bool)  # every node is its own neighbor, as in the paper's code
    pos_weight = (target.numel() - target.sum()) / target.sum()  # edges weigh as much as all the rest
    # The loss of the paper's code is norm * mean(weighted cross entropies) + KL / N^2: the mean over N^2 pairs, the KL
    # summed over the nodes, and norm = 1/2 / (share of pairs without an edge). Divided by norm / N^2 that is the
    # negative ELBO with pos_weight and this beta.
    beta = 2 * (1 - target.float().mean())

    for step in range(steps):
        mu, logstd = encoder()
        z, kl = pyvae.reparameterize_kl(mu, logstd=logstd)  # kl: (N,), of each node
        # A row is a node with its logits for all others. The target is read as bool: there is no float copy of N^2.
        loss = pyvae.elbo_loss(z @ z.T, target, kl=kl, likelihood="bernoulli_logits", pos_weight=pos_weight, beta=beta)
        optimizer.zero_grad()
        (loss / target.numel()).backward()
        optimizer.step()
        if (step + 1) % 50 == 0:
            auc = area(mu @ mu.T, hidden, absent)
            print(f"step {step + 1}: loss {loss / target.numel():.4f}, hidden edges found with an AUC of {auc:.3f}")
    print(f"knowing the communities would give {area(probability, hidden, absent):.3f}")
    return area(mu @ mu.T, hidden, absent)


def area(scores: Tensor, hidden: Tensor, absent: Tensor) -> float:
    """Under the ROC curve, of the scores (N, N) at the hidden pairs against those at the absent ones."""
    pairs = torch.cat([hidden, absent], dim=1)
    return roc_auc_score(torch.arange(pairs.shape[1]) < hidden.shape[1], scores[pairs[0], pairs[1]].detach())


if __name__ == "__main__":
    main()
