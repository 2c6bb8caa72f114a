"""mx.viz: a net as a table, or as a drawing in Graphviz's language."""

from asyncmod.visualization.network import Drawing, plot_network
from asyncmod.visualization.summary import print_summary

__all__ = ["Drawing", "plot_network", "print_summary"]
