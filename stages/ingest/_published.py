"""torchvision's data sets: the files that their publishers distribute, and how images and labels lie in them.

Names, addresses, digests and class names are torchvision's (a test compares them); its division into train and test is
ignored, because splits follow content here. CIFAR is read in the binary version, because its usual archive holds
pickles.
"""

import math
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.ingest._records import matlab_numbers, numbers


@dataclass(frozen=True)
class Labels:
    """Numbers after `skip` bytes of `member` of a file, in rows of `columns`, of which `column` is the label."""

    file: str
    member: str = ""
    array: str = ""  # of a MATLAB file, in place of member and skip
    skip: int = 0
    kind: str = "u1"
    columns: int = 1
    column: int = 0


@dataclass(frozen=True)
class Part:
    """Images of one size, one after the other, in a file or in `member` of it.

    After `skip` bytes, each record is `lead` bytes and then the pixels: channel by channel, each row by row, or column
    by column if `turned`.
    """

    file: str
    labels: Labels | None
    shape: tuple[int, int, int]  # channels, height, width
    member: str = ""
    array: str = ""  # of a MATLAB file, in place of member and skip
    skip: int = 0
    lead: int = 0
    turned: bool = False

    @property
    def stride(self) -> int:
        """Bytes of a record."""
        return self.lead + math.prod(self.shape)


@dataclass(frozen=True)
class Published:
    """Files as (name, MD5) below the address `url`. The first holds the images, unless `parts` say where they lie.

    In an archive the class of an image is its folder, `depth` folders down, or what `labels` reads for its name.
    """

    url: str
    files: tuple[tuple[str, str], ...]
    classes: tuple[str, ...] = ()  # names of the labels from `first` on, wrapping round: SVHN's 10 is the digit 0
    first: int = 0
    names: str = ""  # member that names them instead
    named: tuple[tuple[str, str], ...] = ()  # (folder, class) where they differ
    depth: int = 0
    labels: Callable[[Mapping[str, Path]], dict[bytes, str]] | None = None
    parts: tuple[Part, ...] = ()


_IDX = [f"{division}-{kind}-ubyte.gz" for division in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
_DIGITS = tuple(string.digits)
_MERGED = "cijklmopsuvwxyz"  # EMNIST's letters whose upper and lower case are one class
_BALANCED = tuple(sorted({*string.digits, *string.ascii_letters} - {*_MERGED}))
_EMNIST = {
    "byclass": tuple(sorted(string.digits + string.ascii_letters)), "bymerge": _BALANCED, "balanced": _BALANCED,
    "letters": tuple(string.ascii_lowercase), "digits": _DIGITS, "mnist": _DIGITS,
}  # fmt: skip
_FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_IMAGENETTE = (
    ("n01440764", "tench"), ("n02102040", "English springer"), ("n02979186", "cassette player"),
    ("n03000684", "chain saw"), ("n03028079", "church"), ("n03394916", "French horn"),
    ("n03417042", "garbage truck"), ("n03425413", "gas pump"), ("n03445777", "golf ball"), ("n03888257", "parachute"),
)  # fmt: skip
_FLOWERS = (  # separated by |
    "pink primrose|hard-leaved pocket orchid|canterbury bells|sweet pea|english marigold|tiger lily|moon orchid|"
    "bird of paradise|monkshood|globe thistle|snapdragon|colt's foot|king protea|spear thistle|yellow iris|"
    "globe-flower|purple coneflower|peruvian lily|balloon flower|giant white arum lily|fire lily|"
    "pincushion flower|fritillary|red ginger|grape hyacinth|corn poppy|prince of wales feathers|stemless gentian|"
    "artichoke|sweet william|carnation|garden phlox|love in the mist|mexican aster|alpine sea holly|"
    "ruby-lipped cattleya|cape flower|great masterwort|siam tulip|lenten rose|barbeton daisy|daffodil|sword lily|"
    "poinsettia|bolero deep blue|wallflower|marigold|buttercup|oxeye daisy|common dandelion|petunia|wild pansy|"
    "primula|sunflower|pelargonium|bishop of llandaff|gaura|geranium|orange dahlia|pink-yellow dahlia?|"
    "cautleya spicata|japanese anemone|black-eyed susan|silverbush|californian poppy|osteospermum|spring crocus|"
    "bearded iris|windflower|tree poppy|gazania|azalea|water lily|rose|thorn apple|morning glory|passion flower|"
    "lotus|toad lily|anthurium|frangipani|clematis|hibiscus|columbine|desert-rose|tree mallow|magnolia|cyclamen|"
    "watercress|canna lily|hippeastrum|bee balm|ball moss|foxglove|bougainvillea|camellia|mallow|mexican petunia|"
    "bromelia|blanket flower|trumpet creeper|blackberry lily"
)
_SVHN = (
    ("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"), ("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
    ("extra_32x32.mat", "a93ce644f1a588dc4d68dda5feec44a7"),
)  # fmt: skip


def _idx(url: str, digests: Sequence[str], classes: Sequence[str]) -> Published:
    parts = tuple(
        Part(images, Labels(labels, skip=8), (1, 28, 28), skip=16)
        for images, labels in zip(_IDX[::2], _IDX[1::2], strict=True)
    )
    return Published(url, tuple(zip(_IDX, digests, strict=True)), tuple(classes), parts=parts)


def _emnist(split: str) -> Published:
    def part(division: str) -> Part:
        images, labels = (f"gzip/emnist-{split}-{division}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
        return Part("gzip.zip", Labels("gzip.zip", labels, skip=8), (1, 28, 28), images, skip=16, turned=True)

    return Published(
        "https://biometrics.nist.gov/cs_links/EMNIST/", (("gzip.zip", "58c8d27c78d21e728a6bc7b3cc06412e"),),
        _EMNIST[split], first=int(split == "letters"), parts=(part("train"), part("test")),
    )  # fmt: skip


def _cifar(archive: str, md5: str, folder: str, names: str, members: Sequence[str], heads: int) -> Published:
    columns = heads + 3 * 32 * 32
    parts = tuple(
        Part(archive, Labels(archive, member, columns=columns, column=heads - 1), (3, 32, 32), member, lead=heads)
        for member in (f"{folder}/{name}.bin" for name in members)
    )
    url = "https://www.cs.toronto.edu/~kriz/"
    return Published(url, ((archive, md5),), names=f"{folder}/{names}", parts=parts)


def _stl10(divisions: Sequence[str], *, labelled: bool) -> Published:
    archive, folder = "stl10_binary.tar.gz", "stl10_binary"
    parts = tuple(
        Part(archive, Labels(archive, f"{folder}/{division}_y.bin") if labelled else None, (3, 96, 96),
             f"{folder}/{division}_X.bin", turned=True)
        for division in divisions
    )  # fmt: skip
    return Published(
        "http://ai.stanford.edu/~acoates/stl10/", ((archive, "91f7769df0f17e558f3565bffb0c7dfb"),),
        first=1, names=f"{folder}/class_names.txt" if labelled else "", parts=parts,
    )  # fmt: skip


def _svhn(*files: tuple[str, str]) -> Published:
    parts = tuple(Part(name, Labels(name, array="y"), (3, 32, 32), array="X", turned=True) for name, _ in files)
    return Published("http://ufldl.stanford.edu/housenumbers/", files, _DIGITS, parts=parts)


def _imagenette(name: str, md5: str) -> Published:
    url = "https://s3.amazonaws.com/fast-ai-imageclas/"
    return Published(url, ((f"{name}.tgz", md5),), named=_IMAGENETTE, depth=2)


def _flowers(files: Mapping[str, Path]) -> dict[bytes, str]:
    labels = matlab_numbers(files["imagelabels.mat"], "labels").astype(int)
    names = _FLOWERS.split("|")
    return {f"jpg/image_{at:05d}.jpg".encode(): names[label - 1] for at, label in enumerate(labels.tolist(), 1)}


def _pets(files: Mapping[str, Path]) -> dict[bytes, str]:
    """Breeds by image name, from both lists; the archive holds some forty images that neither list names."""
    lists = [numbers(files["annotations.tar.gz"], f"annotations/{name}.txt") for name in ("test", "trainval")]
    names = [line.split()[0] for text in lists for line in text.tobytes().decode().splitlines()]
    breeds = (" ".join(word.title() for word in name.rpartition("_")[0].split("_")) for name in names)
    return {f"images/{name}.jpg".encode(): breed for name, breed in zip(names, breeds, strict=True)}


DATASETS = {
    "MNIST": _idx(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432", "9fb629c4189551a2d022fa330f9573f3",
         "ec29112dd5afa0611ce80d1b7f02629c"),
        [str(digit) for digit in range(10)],
    ),
    "FashionMNIST": _idx(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe", "bef4ecab320f06d8554ea6380940ec79",
         "bb300cfdad3c16e7a12a480ee83cd310"),
        _FASHION,
    ),
    "KMNIST": _idx(
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        ("bdb82020997e1d708af4cf47b453dcf7", "e144d726b3acfaa3e44228e80efcd344", "5c965bf0a639b31b8f53240b1b52f4d7",
         "7320c461ea6c1c855c0b718fb2a4b134"),
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
    "QMNIST": Published(
        "https://raw.githubusercontent.com/facebookresearch/qmnist/master/",
        (("qmnist-train-images-idx3-ubyte.gz", "ed72d4157d28c017586c42bc6afe6370"),
         ("qmnist-train-labels-idx2-int.gz", "0058f8dd561b90ffdd0f734c6a30e5e4"),
         ("qmnist-test-images-idx3-ubyte.gz", "1394631089c404de565df7b7aeaf9412"),
         ("qmnist-test-labels-idx2-int.gz", "5b5b05890a5e13444e108efe57b788aa")),
        _DIGITS,
        parts=tuple(Part(f"qmnist-{division}-images-idx3-ubyte.gz",
                         Labels(f"qmnist-{division}-labels-idx2-int.gz", skip=12, kind=">i4", columns=8),
                         (1, 28, 28), skip=16) for division in ("train", "test")),
    ),
    **{f"EMNIST-{split}": _emnist(split) for split in _EMNIST},
    "CIFAR10": _cifar(
        "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", "cifar-10-batches-bin", "batches.meta.txt",
        [*(f"data_batch_{at}" for at in range(1, 6)), "test_batch"], 1,
    ),
    "CIFAR100": _cifar(
        "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", "cifar-100-binary", "fine_label_names.txt",
        ["test", "train"], 2,
    ),
    "SVHN": _svhn(*_SVHN[:2]),
    "SVHN-extra": _svhn(*_SVHN),
    "STL10": _stl10(("test", "train"), labelled=True),
    "STL10-unlabeled": _stl10(("unlabeled",), labelled=False),
    "Flowers102": Published(
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
        (("102flowers.tgz", "52808999861908f626f3c1f4e79d11fa"),
         ("imagelabels.mat", "e0620be6f572b9609742df49c70aed4d")), tuple(_FLOWERS.split("|")), labels=_flowers,
    ),
    "OxfordIIITPet": Published(
        "https://www.robots.ox.ac.uk/~vgg/data/pets/data/",
        (("images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c"),
         ("annotations.tar.gz", "95a8c909bbe2e81eed6a22bccdf3f68f")), labels=_pets,
    ),
    "DTD": Published(
        "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/",
        (("dtd-r1.0.1.tar.gz", "fff73e5086ae6bdbea199a49dfb8a4c1"),), depth=2,
    ),
    "Imagenette": _imagenette("imagenette2", "fe2fc210e6bb7c5664d602c3cd71e612"),
    "Imagenette-320px": _imagenette("imagenette2-320", "3df6f0d01a2c9592104656642f5e78a3"),
    "Imagenette-160px": _imagenette("imagenette2-160", "e793b78cc4c9e9a4ccc0c1155377a412"),
    "EuroSAT": Published(
        "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/",
        (("EuroSAT.zip", "c8fa014336c82ac7804f0398fcb19387"),), depth=1,
    ),
    "Food101": Published(
        "http://data.vision.ee.ethz.ch/cvl/",
        (("food-101.tar.gz", "85eeb15f3717b99a5da872d97d918f87"),), depth=2,
    ),
    "Country211": Published(
        "https://openaipublic.azureedge.net/clip/data/",
        (("country211.tgz", "84988d7644798601126c29e9877aab6a"),), depth=2,
    ),
}  # fmt: skip
INSTEAD = {
    "EMNIST": f"one of {', '.join(f'EMNIST-{split}' for split in _EMNIST)}",
    "CelebA": "source manifest reads list_attr_celeba.txt beside img_align_celeba.zip",
    "ImageFolder": "source folder reads it",
    "FGVCAircraft": "torchvision states no digest; write its lists as a table for source manifest",
    "StanfordCars": "its publisher hands it out no more; write its labels as a table for source manifest",
    "GTSRB": "its PPM images are not read; save them as PNG in class folders for source folder",
    "PCAM": "its HDF5 files are not read; save them as numpy arrays for source arrays",
    "USPS": "its numbers are text; save them as numpy arrays for source arrays",
}
