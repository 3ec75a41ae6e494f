"""What the classes of data sets are called, in the order of their labels; without PyTorch."""

from east.config.choices import Choice, named

CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"

CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
wolf woman worm
"""

FASHION = "t-shirt trouser pullover dress coat sandal shirt sneaker bag ankle_boot"

NAMES = {
    "cifar10": tuple(CIFAR10.split()),
    "cifar100": tuple(CIFAR100.split()),
    "fashion_mnist": tuple(FASHION.split()),
}
"""Data set -> names of its classes (Krizhevsky, Learning multiple layers of features from tiny images, 2009;
Xiao, Rasul & Vollgraf, Fashion-MNIST, 2017)."""


def class_names(reader: str | Choice, num_classes: int) -> tuple[str, ...]:
    """The names of the classes of what reads images; where none are known, their numbers, in digits of one length."""
    name, _, plugin = named(reader)
    known = NAMES.get(name, ()) if plugin is None else ()
    if len(known) == num_classes:
        return known
    digits = len(str(num_classes - 1))
    return tuple(f"{number:0{digits}}" for number in range(num_classes))
