"""The selection methods, one file each. METHODS names them; importing it needs numpy and scipy, never torch."""

from tasks.methods import (
    clip_score,
    coincide,
    combined,
    d2,
    deita,
    el2n,
    icons,
    llm_judge,
    margin,
    ost,
    perplexity,
    presel,
    prism,
    random,
    scalselect,
    self_filter,
    self_sup,
    semdedup,
    stratified,
)
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
        Method("d2", d2.Options, d2.signals, d2.score, d2.select),
        Method("self_sup", self_sup.Options, self_sup.signals, self_sup.score, take_best),
        Method("self_filter", self_filter.Options, self_filter.signals, self_filter.score, self_filter.select),
        Method("el2n", el2n.Options, el2n.signals, el2n.score, take_best),
        Method("perplexity", perplexity.Options, perplexity.signals, perplexity.score, take_best),
        Method("margin", margin.Options, margin.signals, margin.score, take_best),
        Method("clip_score", clip_score.Options, clip_score.signals, clip_score.score, take_best),
        Method("deita", deita.Options, deita.signals, deita.score, deita.select),
        Method("llm_judge", llm_judge.Options, llm_judge.signals, llm_judge.score, take_best),
        Method("ost", ost.Options, ost.signals, ost.score, take_best, ost.explain),
        Method("icons", icons.Options, icons.signals, icons.score, take_best),
        Method("presel", presel.Options, presel.signals, presel.score, presel.select),
        Method("combined", combined.Options, combined.signals, combined.score, combined.select),
        Method("random", random.Options, random.signals, random.score, random.select),
        Method("stratified", stratified.Options, stratified.signals, stratified.score, stratified.select),
    )
}
"""Method by name, in the order in which they are listed to a user."""
