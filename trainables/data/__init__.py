"""Data sets: named ones, folders of class folders, Parquet files; as uint8 tensors in memory, or streamed.

Splits. *train* is what is learned from. *validation* is measured after every epoch, and is all that early stopping or a
search may look at: `validation` of the training images, drawn once, stratified, by a seed that is not the trial's. With
`validation` 0 nothing is held out and the test split stands in for it, as in the papers whose protocol has no third
split; nothing may be selected on it then. Where a set has a validation split of its own that is it, whatever
`validation` says. *test* is measured once, after the last epoch. Digits and flat folders, which
come without a test split, give 20% of their images to one, drawn the same way.

With `folds` the data set's own test split counts for nothing: all its images are divided into so many stratified
parts, the same for every method and seed, of which the trial's `fold` is its test split and the others are its training
images. Every image is thus tested on once. The folds of a data set in memory share one array of all images.
"""

from trainables.data.configuration import DataConfig
from trainables.data.images import Images, Split
from trainables.data.shared import SharedData
from trainables.data.shift import check_others, load_others
from trainables.data.sources import DataInfo, check_masks, describe, identify, load, load_each
from trainables.data.streamed import StreamedImages

__all__ = [
    "DataConfig",
    "DataInfo",
    "Images",
    "SharedData",
    "Split",
    "StreamedImages",
    "check_masks",
    "check_others",
    "describe",
    "identify",
    "load",
    "load_each",
    "load_others",
]
