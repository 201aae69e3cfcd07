"""Reading samples through a vision-language model: load only what is needed, place token spans, capture attention."""
