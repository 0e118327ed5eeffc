"""reference.toml: what it says, and what a person is told who wrote it wrongly."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.attest.references import MAX_TEXT, parse_references
from gateway.errors import ConfigError
from tests.reference_files import NOW_S, instant, references, release, rule

A, B = bytes(range(32)), bytes(range(1, 33))
FULL = release(
    {0: A, 7: [A, B]},
    name="2026-11",
    until_s=NOW_S + 1,
    more='version = "1.4.0"\ntls = ["tpm", "memory"]\nresets = 100\n',
    tables="[release.counters]\n0x01800001 = 3\n"
    + rule("required", 7, A, about="secure boot on", event_type="EV_EFI_VARIABLE_DRIVER_CONFIG"),
)


def test_a_file_says_releases_with_windows_values_rules_and_floors() -> None:
    (found,) = references(FULL).releases
    assert (found.name, found.version, found.from_s, found.until_s) == ("2026-11", "1.4.0", NOW_S - 86_400, NOW_S + 1)
    assert found.pcrs == {0: {A}, 7: {A, B}}
    assert dict(found.counters) == {0x01800001: 3}
    assert set(found.tls) == {"tpm", "memory"}
    assert found.resets == 100
    (one,) = found.events
    assert set(one.digests) == {A}
    assert (one.pcr, one.rule, one.type, one.about) == (7, "required", 0x80000001, "secure boot on")


def test_a_file_of_any_two_texts_has_two_policies() -> None:
    first, second = references(FULL).policy, references(FULL + "\n# a comment\n").policy
    assert first != second
    assert first.startswith("reference.toml sha256:")


def test_releases_may_overlap_and_one_name_may_stand_for_two_models() -> None:
    found = references(release({0: A}), release({0: B}, name="r2"), release({0: A}, model="another"))
    assert [(one.model, one.name) for one in found.releases] == [
        ("wattseal-gw", "r1"),
        ("wattseal-gw", "r2"),
        ("another", "r1"),
    ]


def test_the_page_shows_a_file_that_parses() -> None:
    page = (Path(__file__).parent.parent / "docs" / "references.md").read_text("utf-8")
    shown = re.findall(r"^```toml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (release,) = references(*shown).releases
    assert (release.name, len(release.pcrs[4])) == ("2026-11", 2)


MISTAKES = {
    "no release": ("[[release]]", "# [[release]]", "want [[release]]"),
    "one table": ("[[release]]", "[release]", "release: got {"),
    "no name": ('name = "2026-11"\n', "", "release[0].name: got nothing, want lower-case"),
    "a bad name": ('"2026-11"', '"A B"', "release[0].name: got 'A B', want lower-case"),
    "an unknown key": ("resets = 100", "reset = 100", "release[0].reset: got an unknown key, want one of name, "),
    "no offset": (instant(NOW_S + 1), "2026-12-01T00:00:00", "release[0].until: got datetime"),
    "a day": (instant(NOW_S + 1), "2026-12-01", "want a time with its offset, such as 2026-11-01T00:00:00Z"),
    "an end before the beginning": (instant(NOW_S + 1), "2020-01-01T00:00:00Z", "want a time after `from`"),
    "a short digest": (A.hex(), "00", "release[0].pcrs.0: got '00', want SHA-256 in 64 lower-case"),
    "upper case": (f"7 = ['{A.hex()}", f"7 = ['{A.hex().upper()}", "release[0].pcrs.7: got '0001"),
    "a number for a digest": (f"0 = ['{A.hex()}']", "0 = 5", "release[0].pcrs.0: got 5, want a list of 1 to 256"),
    "no digest": (f"0 = ['{A.hex()}']", "0 = []", "release[0].pcrs.0: got [], want a list of 1 to 256"),
    "an impossible PCR": ("0 = [", "24 = [", "release[0].pcrs: got the key '24', want a PCR's index, 0..23"),
    "an NV index in decimal": ("0x01800001", "25165825", "release[0].counters: got the key '25165825', want an NV"),
    "a floor below zero": ("= 3", "= -3", "release[0].counters.0x01800001: got -3, want a whole number from 0"),
    "a floor that is text": ("= 3", '= "3"', "release[0].counters.0x01800001: got '3', want a whole number"),
    "no rule": ('rule = "required"\n', "", "release[0].event[0].rule: got nothing, want one of"),
    "an unknown rule": ('"required"', '"maybe"', "release[0].event[0].rule: got 'maybe', want one of forbidden, only,"),
    "an unknown type": ("EV_EFI_VARIABLE_DRIVER_CONFIG", "EV_NEW", "want one that the TCG's profile names"),
    "a type that an attacker chooses": ('"required"', '"forbidden"', "event[0].type: got EV_EFI_VARIABLE_DRIVER"),
    "one table for a rule": ("[[release.event]]", "[release.event]", "release[0].event: got {"),
    "a bad index": ("pcr = 7", "pcr = 70", "release[0].event[0].pcr: got 70, want 0..23"),
    "no resets": ("resets = 100", "resets = 0", "release[0].resets: got 0, want 1..4294967295"),
    "not TOML": ("resets = 100", "resets = ", "reference.toml: not TOML"),
}


@pytest.mark.parametrize(("old", "new", "said"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_is_told_by_where_got_and_want(old: str, new: str, said: str) -> None:
    assert old in FULL
    with pytest.raises(ConfigError) as caught:
        references(FULL.replace(old, new, 1))
    assert str(caught.value).startswith("reference.toml: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_release_that_is_known_by_no_pcr_is_refused() -> None:
    with pytest.raises(ConfigError, match="got none, want at least one PCR"):
        references(release({}))


def test_one_release_twice_and_a_file_without_one_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"release\[1\].name: got r1 for wattseal-gw again"):
        references(release({0: A}), release({0: B}))
    with pytest.raises(ConfigError, match="release: got None, want 1 to 1000"):
        references("")
    with pytest.raises(ConfigError, match="unknown section"):
        references(FULL, "[other]\n")
    with pytest.raises(ConfigError, match="want at most"):
        references("#" * (MAX_TEXT + 1))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_text_that_is_bent_in_any_way_is_a_file_or_a_config_error(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(FULL)))
    bent = FULL[:at] + data.draw(st.text(max_size=4)) + FULL[at + data.draw(st.integers(0, 40)) :]
    try:
        assert parse_references(bent, name="reference.toml").releases
    except ConfigError as e:
        said = str(e)
        assert said.startswith("reference.toml: ")
