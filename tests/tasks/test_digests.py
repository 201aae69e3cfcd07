import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tasks.digests import DigestIndex, first_of_each, from_arrow, pack, to_arrow, unpack

# Few distinct first bytes and few distinct last ones: digests that share their eight-byte prefix are common.
DIGESTS = st.lists(
    st.tuples(st.sampled_from([b"\0" * 8, b"\xff" * 8, b"abcdefgh"]), st.integers(0, 5)).map(
        lambda pair: (pair[0] + bytes(23) + bytes([pair[1]])).hex()
    ),
    max_size=40,
)


@given(known=DIGESTS, wanted=DIGESTS)
def test_find_equals_a_dictionary_where_the_first_of_equals_wins(known, wanted):
    index = DigestIndex(pack(known))
    first = {}
    for place, digest in enumerate(known):
        first.setdefault(digest, place)
    found = index.find(pack(wanted))
    assert [index.order[at] if at >= 0 else None for at in found] == [first.get(digest) for digest in wanted]


@given(digests=DIGESTS)
def test_first_of_each(digests):
    assert first_of_each(pack(digests)).tolist() == sorted(digests.index(one) for one in set(digests))


@given(digests=DIGESTS)
def test_packing_is_reversible(digests):
    packed = pack(digests)
    assert unpack(packed) == digests
    assert unpack(from_arrow(to_arrow(packed))) == digests
    assert unpack(from_arrow(to_arrow(packed).slice(1))) == digests[1:]


def test_presorted_index_finds_the_same():
    digests = np.random.default_rng(0).integers(0, 256, (500, 32)).astype(np.uint8)
    index = DigestIndex(digests)
    again = DigestIndex(index.digests, presorted=True)
    assert (index.find(digests[::7]) == again.find(digests[::7])).all()
    assert len(again) == 500
