"""Compare selections by what they are for: being like a held-out target, at equal tokens, beside chance.

`compare.compare` is the whole of it: `sources` finds shards, `corpus` reads them twice (numbers of every
document, then the tokens of those that are drawn), `draws` cuts selections to one size and draws controls,
`measures` says how near their text comes to the target's.
"""
