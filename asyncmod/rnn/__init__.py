"""Recurrent nets: the data that they are trained on."""

from asyncmod.io.bucket_sentence_iter import BucketSentenceIter, encode_sentences

__all__ = ["BucketSentenceIter", "encode_sentences"]
