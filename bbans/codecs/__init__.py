"""Codecs: (push, pop) pairs for distributions over integers, and combinators. NumPy only."""

from bbans.codecs.bilevel import Bernoullis
from bbans.codecs.core import Codec, autoregressive, dependent, from_intervals, over_lanes, repeat, serial, substack
from bbans.codecs.discrete import bernoulli, beta_binomial, categorical, quantise, uniform
from bbans.codecs.latent import BinnedPosterior, logistic_edges, prior_codec
from bbans.codecs.mixture import Mixture
from bbans.codecs.tables import ScaleTables, logistic_tables, normal_tables

__all__ = [
    "Bernoullis",
    "BinnedPosterior",
    "Codec",
    "Mixture",
    "ScaleTables",
    "autoregressive",
    "bernoulli",
    "beta_binomial",
    "categorical",
    "dependent",
    "from_intervals",
    "logistic_edges",
    "logistic_tables",
    "normal_tables",
    "over_lanes",
    "prior_codec",
    "quantise",
    "repeat",
    "serial",
    "substack",
    "uniform",
]
