"""The selection methods, one file each. METHODS names them; importing it needs numpy and scipy, never torch."""

from tasks.methods import coincide, prism, random, scalselect, semdedup, stratified
from tasks.methods.contract import Method, take_best

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "scalselect",
            scalselect.Options,
            scalselect.signals,
            scalselect.score,
            scalselect.select,
            scalselect.explain,
        ),
        Method("prism", prism.Options, prism.signals, prism.score, take_best),
        Method("coincide", coincide.Options, coincide.signals, coincide.score, coincide.select, coincide.explain),
        Method("semdedup", semdedup.Options, semdedup.signals, semdedup.score, semdedup.select, semdedup.explain),
        Method("random", random.Options, random.signals, random.score, random.select),
        Method("stratified", stratified.Options, stratified.signals, stratified.score, stratified.select),
    )
}
"""Method by name, in the order in which they are listed to a user."""
