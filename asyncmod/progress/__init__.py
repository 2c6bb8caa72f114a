"""How far `fit` is: a bar on a terminal, a line now and then elsewhere."""

from asyncmod.progress.display import Display, Outline, Silent, shown

__all__ = ["Display", "Outline", "Silent", "shown"]
