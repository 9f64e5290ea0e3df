"""What is known of each data set: where it comes from, what it must look like, how it is checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

from . import _formats
from ._formats import Arrays


@dataclass(frozen=True)
class Remote:
    """A file of the canonical source; `md5` only where the source itself publishes it."""

    url: str
    md5: str | None = None

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True)
class Spec:
    """A data set. Its file has arrays ``x`` and ``y``, or if `sparse` the parts of a CSR matrix and ``y``."""

    name: str
    about: str
    source: str
    licence: str
    shape: tuple[int | None, ...]  # None: any size
    dtype: str
    classes: tuple[str, ...]
    files: tuple[Remote, ...] = ()
    parse: Callable[[Sequence[BinaryIO]], Arrays] | None = None
    counts: tuple[int, ...] | None = None  # rows of each class
    sha256: tuple[tuple[str, str], ...] = ()  # of the bytes of these arrays
    rows_sha256: str | None = None  # of the sorted digests of the rows, so that their order does not matter
    parent: str | None = None  # a larger set that holds this one
    part: Callable[[Arrays], Arrays] | None = None  # the arrays of this set out of those of `parent`
    coarse_classes: tuple[str, ...] = ()
    sparse: bool = False
    embedded: Callable[[], Any] | None = None  # for a set that comes with scikit-learn: its loader
    by_hand: str = ""  # for a set that cannot be downloaded: why, and what to do

    @property
    def keys(self) -> tuple[str, ...]:
        keys = ("data", "indices", "indptr", "shape", "y") if self.sparse else ("x", "y")
        return (*keys, "y_coarse") if self.coarse_classes else keys


def _numbered(word: str, n: int) -> tuple[str, ...]:
    return tuple(f"{word} {i}" for i in range(1, n + 1))


def _last_10000(arrays: Arrays) -> Arrays:
    return {key: array[-10000:] for key, array in arrays.items()}


def _superclass(arrays: Arrays, coarse: int) -> Arrays:
    rows = arrays["y_coarse"] == coarse
    fine = np.unique(arrays["y"][rows])
    return {"x": arrays["x"][rows], "y": np.searchsorted(fine, arrays["y"][rows]).astype(np.uint8)}


DIGITS = tuple("0123456789")
SUPERCLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man_made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non_insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
_TOPICS = ("acq", "crude", "earn", "grain", "interest", "money-fx", "ship", "trade")
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_GARMENTS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_IDX = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
_KRIZ = "https://www.cs.toronto.edu/~kriz"
_DENG_CAI = "http://www.cad.zju.edu.cn/home/dengcai/Data"
_LIBSVM = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass"
_CIFAR_TERMS = "none stated by the source, which asks for a citation of Krizhevsky, 2009"
_CIFAR_SOURCE = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009; " + _KRIZ + "/cifar.html"
_MNIST_SOURCE = "LeCun, Cortes and Burges; the files of yann.lecun.com from the mirror that PyTorch keeps"
_MNIST_TERMS = "CC BY-SA 3.0, as commonly stated; derived from NIST special databases 3 and 1"
_MAMMALS_ROWS = "45c8a5e0ddd23055ef051bb3f84386bbeae3016215bd89eb5ba92892190501de"

_SPECS = [
    Spec(
        name="digits",
        about="1797 handwritten digits, part of scikit-learn: always at hand.",
        source="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, through scikit-learn",
        licence="CC BY 4.0 (UCI)",
        shape=(1797, 8, 8),
        dtype="float64",
        classes=DIGITS,
        embedded=load_digits,
    ),
    Spec(
        name="iris",
        about="Lengths and widths in cm of 150 iris flowers, part of scikit-learn: always at hand.",
        source="Fisher, The Use of Multiple Measurements in Taxonomic Problems, 1936, through scikit-learn",
        licence="CC BY 4.0 (UCI)",
        shape=(150, 4),
        dtype="float64",
        classes=("setosa", "versicolor", "virginica"),
        embedded=load_iris,
    ),
    Spec(
        name="wine",
        about="Chemical analyses of 178 wines of three growers, in columns of different units, part of scikit-learn.",
        source="Aeberhard and Forina, Wine, UCI, through scikit-learn",
        licence="CC BY 4.0 (UCI)",
        shape=(178, 13),
        dtype="float64",
        classes=_numbered("grower", 3),
        embedded=load_wine,
    ),
    Spec(
        name="breast_cancer",
        about="Measures of the cell nuclei of 569 tumours, in columns of different units, part of scikit-learn.",
        source="Wolberg, Mangasarian and Street, Breast Cancer Wisconsin (Diagnostic), UCI, through scikit-learn",
        licence="CC BY 4.0 (UCI)",
        shape=(569, 30),
        dtype="float64",
        classes=("malignant", "benign"),
        embedded=load_breast_cancer,
    ),
    Spec(
        name="mnist",
        about="70000 handwritten digits: the 60000 training rows, then the 10000 test rows.",
        source=_MNIST_SOURCE,
        licence=_MNIST_TERMS,
        shape=(70000, 28, 28),
        dtype="uint8",
        classes=DIGITS,
        files=tuple(Remote(f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}") for name in _IDX),
        parse=_formats.idx,
        counts=(6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958),
        sha256=(
            ("x", "5b92582eb909c82a9bfefcd44acbe9233be3eb5b419a44cf211022ad2bf4bf96"),
            ("y", "671ff9d70b4811116d55c3dd479efa7a981e2e62753ef7a6d5c15fea81e63d27"),
        ),
    ),
    Spec(
        name="mnist_test",
        about="The 10000 test rows of MNIST, a view of the same file.",
        source=_MNIST_SOURCE,
        licence=_MNIST_TERMS,
        shape=(10000, 28, 28),
        dtype="uint8",
        classes=DIGITS,
        parent="mnist",
        part=_last_10000,
    ),
    Spec(
        name="fashion_mnist",
        about="70000 pictures of clothing: the 60000 training rows, then the 10000 test rows.",
        source="Xiao, Rasul and Vollgraf, Fashion-MNIST, 2017; https://github.com/zalandoresearch/fashion-mnist",
        licence="MIT",
        shape=(70000, 28, 28),
        dtype="uint8",
        classes=_GARMENTS,
        files=tuple(Remote(f"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{name}") for name in _IDX),
        parse=_formats.idx,
        counts=(7000,) * 10,
        sha256=(
            ("x", "0fbbfcb392782b3b702472ead3688778e1509e8cf40f5c24d9d3303618b193ab"),
            ("y", "8ab940a680640f36c0bf1d2549cb2f3b3d4068c12547116cc7b1161b1d26663d"),
        ),
    ),
    Spec(
        name="usps",
        about="9298 handwritten digits off envelopes, in [0, 1]: 7291 training rows, then 2007 test rows.",
        source="Hull, A Database for Handwritten Text Recognition Research, 1994; LIBSVM, in [-1, 1]",
        licence="none stated by the source",
        shape=(9298, 16, 16),
        dtype="float32",
        classes=DIGITS,
        files=(Remote(f"{_LIBSVM}/usps.bz2"), Remote(f"{_LIBSVM}/usps.t.bz2")),
        parse=_formats.usps,
        counts=(1553, 1269, 929, 824, 852, 716, 834, 792, 708, 821),
        rows_sha256="5082f5929424da4fd71ac1b82516f6415a133a014f3707e25cef56834a23ee9b",
    ),
    Spec(
        name="cifar10",
        about="60000 small colour photographs: the 50000 training rows, then the 10000 test rows.",
        source=_CIFAR_SOURCE,
        licence=_CIFAR_TERMS,
        shape=(60000, 32, 32, 3),
        dtype="uint8",
        classes=_CIFAR10,
        files=(Remote(f"{_KRIZ}/cifar-10-binary.tar.gz", md5="c32a1d4ab5d03f1284b67883e8d87530"),),
        parse=partial(
            _formats.cifar,
            members=(*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"),
            labels=("y",),
        ),
        counts=(6000,) * 10,
    ),
    Spec(
        name="cifar10_test",
        about="The 10000 test rows of CIFAR-10, in the order of the file they come from.",
        source=_CIFAR_SOURCE,
        licence=_CIFAR_TERMS,
        shape=(10000, 32, 32, 3),
        dtype="uint8",
        classes=_CIFAR10,
        counts=(1000,) * 10,
        rows_sha256="65a6ffe079453e514083f99356b35e02cbfd581b4951e3937fae188974b79f39",
        parent="cifar10",
        part=_last_10000,
    ),
    Spec(
        name="cifar100",
        about="60000 colour photographs of 100 classes (`target`) in 20 superclasses (`target_coarse`).",
        source=_CIFAR_SOURCE,
        licence=_CIFAR_TERMS,
        shape=(60000, 32, 32, 3),
        dtype="uint8",
        classes=tuple(sorted(" ".join(SUPERCLASSES.values()).split())),
        coarse_classes=tuple(SUPERCLASSES),
        files=(Remote(f"{_KRIZ}/cifar-100-binary.tar.gz", md5="03b5dce01913d631647c71ecec9e9cb8"),),
        parse=partial(_formats.cifar, members=("train.bin", "test.bin"), labels=("y_coarse", "y")),
        counts=(600,) * 100,
    ),
    *(
        Spec(
            name=f"cifar100_{superclass}",
            about=f"The 3000 rows of superclass {superclass} of CIFAR-100, training and test parts together.",
            source=_CIFAR_SOURCE,
            licence=_CIFAR_TERMS,
            shape=(3000, 32, 32, 3),
            dtype="uint8",
            classes=tuple(classes.split()),
            counts=(600,) * 5,
            rows_sha256=_MAMMALS_ROWS if superclass == "aquatic_mammals" else None,
            parent="cifar100",
            part=partial(_superclass, coarse=coarse),
        )
        for coarse, (superclass, classes) in enumerate(SUPERCLASSES.items())
    ),
    Spec(
        name="coil20",
        about="1440 grey pictures of 20 objects on a turntable, 72 of each, in [0, 1].",
        source="Nene, Nayar and Murase, COIL-20, 1996, reduced to 32 x 32 pixels by Deng Cai",
        licence="for research; terms at https://www.cs.columbia.edu/CAVE/software/softlib/coil-20.php",
        shape=(1440, 32, 32),
        dtype="float32",
        classes=_numbered("object", 20),
        files=(Remote(f"{_DENG_CAI}/COIL20/COIL20.mat"),),
        parse=partial(_formats.matlab, dtype="float32"),
        counts=(72,) * 20,
    ),
    Spec(
        name="orl",
        about="400 grey pictures of the faces of 40 people, 10 of each.",
        source="Samaria and Harter, AT&T Laboratories Cambridge (ORL), 1994, as 32 x 32 pixels by Deng Cai",
        licence="free to use with credit to AT&T Laboratories Cambridge",
        shape=(400, 32, 32),
        dtype="uint8",
        classes=_numbered("person", 40),
        files=(Remote(f"{_DENG_CAI}/ORL/ORL_32x32.mat"),),
        parse=partial(_formats.matlab, dtype="uint8"),
        counts=(10,) * 40,
    ),
    Spec(
        name="extended_yale_b",
        about="2414 grey pictures of 38 faces under changing light, made four times smaller each way by a "
        "bicubic filter: not bit-equal to the reduced files that circulate with papers.",
        source="Georghiades, Belhumeur and Kriegman, 2001; Lee, Ho and Kriegman, 2005; the cropped images",
        licence="free to use for research, with a citation of both papers",
        shape=(2414, 48, 42),
        dtype="uint8",
        classes=tuple(f"yaleB{i:02d}" for i in range(1, 40) if i != 14),
        files=(Remote("http://vision.ucsd.edu/extyaleb/CroppedYaleBZip/CroppedYale.zip"),),
        parse=_formats.yale,
        counts=(64,) * 10 + (60, 59, 60, 63, 62, 63, 63) + (64,) * 21,
    ),
    Spec(
        name="reuters_r8",
        about="tf-idf of the 2000 most frequent terms in 7674 news items on 8 topics, R8 of Reuters-21578: "
        "5485 training rows, then 2189 test rows. It is not Reuters-10k and must not be reported as such.",
        source="Lewis, Reuters-21578; the R8 selection of Cardoso-Cachopo, all terms, 2007",
        licence="Reuters-21578 is distributed for research purposes only",
        shape=(7674, 2000),
        dtype="float32",
        classes=_TOPICS,
        files=tuple(
            Remote(f"http://web.ist.utl.pt/~acardoso/datasets/r8-{part}-all-terms.txt") for part in ("train", "test")
        ),
        parse=partial(_formats.r8, topics=_TOPICS),
        counts=(2292, 374, 3923, 51, 271, 293, 144, 326),
        sparse=True,
    ),
    Spec(
        name="reuters10k",
        about="tf-idf of the 2000 most frequent terms of 10000 random news stories of RCV1 on 4 topics.",
        source="Lewis et al., RCV1, 2004; sampled by Xie, Girshick and Farhadi, 2016; supplied by the user",
        licence="RCV1 is distributed by NIST under an agreement of its own",
        shape=(10000, 2000),
        dtype="float32",
        classes=("CCAT", "GCAT", "MCAT", "ECAT"),
        sparse=True,
        by_hand="its stories come from RCV1, which NIST gives only under an agreement, and papers share the "
        "sample as a pickle, which this library does not open. Convert your copy to CSR",
    ),
    Spec(
        name="stanford_online_products",
        about="Pictures of products on sale, selected and supplied by the user.",
        source="Oh Song et al., Deep Metric Learning via Lifted Structured Feature Embedding, 2016",
        licence="none stated by the source; the pictures belong to their sellers",
        shape=(None, None, None, 3),
        dtype="uint8",
        classes=(),  # whatever the user selected
        by_hand="the archive has 2.9 GB, and the 10 categories and 10056 images that papers cluster were "
        "picked by hand and never listed. Make your own selection, scaled to one size such as 32 x 32,",
    ),
]

CATALOG = {spec.name: spec for spec in _SPECS}
