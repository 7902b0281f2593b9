"""What the tiny example asks, and the scale of its reward model."""

REQUESTS = [
    (f"Sign: {name} the {animal} eats {food}, sleeps in the barn and plays with a drum.\n"
     f"Visitor: What does {name} eat?\nGuide:\n", food)
    for name, animal, food in [("Juno", "panda", "clover"), ("Max", "fox", "nuts"), ("Ivy", "owl", "seeds"),
                               ("Otto", "yak", "apples"), ("Tess", "seal", "fish"), ("Pip", "goat", "honey")]
]  # fmt: skip
SCALE = {"mean": 0.25, "std": 2.0}
