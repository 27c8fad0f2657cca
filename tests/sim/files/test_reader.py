"""The one door: hostile and broken files give one clear InputError, sound ones data with lines."""

import json
import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traincast.sim.errors import InputError
from traincast.sim.files.reader import MAX_BYTES, load_document, parse_document

YAML_1_2 = """\
float: 1e9
text: no
octal-looking: 010
date: 2024-05-01
time: 12:30:45
quantity: 400 Gb/s
hex: 0x10
nothing: ~
yes: true
quoted: '7'
list: [1, {a: 2}, [3, 4]]
"""


def test_yaml_1_2_is_read_as_written():
    """What PyYAML turns into sexagesimals, octals, booleans and dates stays what people see."""
    assert parse_document(YAML_1_2, "x.yaml").data == {
        "float": 1e9,
        "text": "no",
        "octal-looking": 10,
        "date": "2024-05-01",
        "time": "12:30:45",
        "quantity": "400 Gb/s",
        "hex": 16,
        "nothing": None,
        "yes": True,
        "quoted": "7",
        "list": [1, {"a": 2}, [3, 4]],
    }


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("x.yaml", "a: 1\nb:\n  - c: 2\n  - d:\n      e: 3\n    f: 4\n"),
        ("x.json", '{"a": 1,\n"b":\n[{"c": 2},\n{"d": {\n"e": 3},\n"f": 4}]}'),
    ],
)
def test_lines_are_known_by_path(file, text):
    """A fault can name its line; what has none has that of what is around it."""
    document = parse_document(text, file)
    assert document.data == {"a": 1, "b": [{"c": 2}, {"d": {"e": 3}, "f": 4}]}
    places = [("a",), ("b",), ("b", 0, "c"), ("b", 1, "d", "e"), ("b", 1, "f"), ("b", 0, "absent")]
    assert [document.line(place) for place in places] == [1, 2, 3, 5, 6, 3]


REFUSED = [
    ("dup.yaml", b"a: 1\nb: 2\na: 3\n", ":3: a: duplicate key; the first is on line 1; remove one"),
    (
        "dup.json",
        b'{"a": {"b": 1,\n"b": 2}}',
        ":2: a.b: duplicate key; the first is on line 1; remove one",
    ),
    ("anchor.yaml", b"a: &x 1\n", ":1: an anchor or alias (& or *) -> expected every value written out"),
    ("alias.yaml", b"a: 1\nb: *x\n", ":2: an anchor or alias (& or *) -> expected every value written out"),
    ("merge.yaml", b"a: 1\n<<: {b: 2}\n", ":2: a merge key (<<) -> expected every key written out"),
    (
        "tag.yaml",
        b"a: !!python/object/apply:os.system [id]\n",
        ":1: the tag tag:yaml.org,2002:python/object/apply:os.system -> expected plain values",
    ),
    ("two.yaml", b"a: 1\n---\nb: 2\n", ":2: a second document -> expected one"),
    ("key.yaml", b"[1]: 2\n", ":1: a list or mapping as a key -> expected text"),
    ("nan.yaml", b"a:\n  - 1\n  - .nan\n", ":3: a[1]: nan -> expected a finite number"),
    ("inf.yaml", b"a: -.inf\n", ":1: a: -inf -> expected a finite number"),
    ("big.yaml", b"a: 1e999\n", ":1: a: 1e999 -> expected a finite number"),
    ("digits.yaml", b"a: " + b"9" * 5000, ":1: a: a number of 5000 characters -> expected at most 400"),
    ("deep.yaml", b"[" * 100_000, ":1: nesting deeper than 64 -> expected at most 64 levels"),
    ("nan.json", b'{"a":\nNaN}', ":2: NaN -> expected a finite number"),
    ("inf.json", b'{"a": -Infinity}', ":1: -Infinity -> expected a finite number"),
    ("big.json", b'{"a": 1e999}', ":1: 1e999 -> expected a finite number"),
    ("digits.json", b"[" + b"9" * 5000 + b"]", ":1: a number of 5000 characters -> expected at most 400"),
    ("deep.json", b"[" * 100_000, ": nesting deeper than 64 -> expected at most 64 levels"),
    ("deep65.json", b"[" * 65 + b"]" * 65, ": nesting deeper than 64 -> expected at most 64 levels"),
    ("cut.json", b'{"a": [1,\n2', ":2: no JSON: ends too early"),
    ("cut2.json", b'{"a": 1,\n"b" 2}', ":2: no JSON: expecting ':' delimiter"),
    ("cut.yaml", b"a: [1, 2\n", ":2: no YAML: expected ',' or ']', but got '<stream end>'"),
    ("utf16.yaml", "a: 1".encode("utf-16"), ": UTF-16 text, or no text -> expected UTF-8 text"),
    ("utf16be.yaml", "a: 1".encode("utf-16-be"), ": UTF-16 text, or no text -> expected UTF-8 text"),
    ("bom.yaml", b"\xef\xbb\xbfa: 1", ":1: a byte order mark -> expected UTF-8 text without one"),
    ("nul.yaml", b"a: 1\nb: \x00", ":2: a NUL byte, so no text -> expected UTF-8 text"),
    (
        "latin.yaml",
        b"a: 1\nb: caf\xe9\n",
        ":2: byte 0xe9, which is not UTF-8 -> expected UTF-8 text",
    ),
    ("empty.yaml", b" \n", ": an empty file -> expected a YAML or JSON document"),
    (
        "long.yaml",
        b"#" * (MAX_BYTES + 1),
        f": more than {MAX_BYTES} bytes -> expected at most {MAX_BYTES} bytes",
    ),
]


@pytest.mark.parametrize(("name", "content", "message"), REFUSED, ids=[case[0] for case in REFUSED])
def test_broken_files_give_one_clear_error(tmp_path, name, content, message):
    """The whole message; exit code 3; never a traceback."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_document(path)
    assert str(caught.value) == f"{path}{message}"
    assert caught.value.exit_code == 3


def test_all_duplicates_at_once():
    with pytest.raises(InputError) as caught:
        parse_document("a: 1\na: 2\nb: {c: 1, c: 2}\n", "x.yaml")
    assert [fault.path for fault in caught.value.faults] == ["a", "b.c"]


def test_yaml_values_are_counted():
    """A file of many values is refused before it takes minutes."""
    with pytest.raises(InputError, match="more than 100000 values"):
        parse_document("[" + "1," * 100_001 + "]", "x.yaml")


def not_a_file(path: Path, kind: str) -> Path:
    """Something at ``path`` that is no regular file."""
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("directory", "a directory -> expected a regular file"),
        ("fifo", "a named pipe -> expected a regular file"),
        ("loop", "a loop of symbolic links -> expected a file that can be read"),
        ("socket", "a socket -> expected a file that can be read"),
        ("absent", "no such file -> expected a file that can be read"),
    ],
)
def test_what_is_no_regular_file(tmp_path, monkeypatch, kind, message):
    """Nothing hangs on a named pipe or runs in circles."""
    monkeypatch.chdir(tmp_path)
    path = not_a_file(Path("x"), kind)
    with pytest.raises(InputError) as caught:
        load_document(path)
    assert str(caught.value) == f"x: {message}"


def test_a_misspelt_name_is_suggested(tmp_path):
    (tmp_path / "cluster.yaml").write_text("a: 1")
    with pytest.raises(InputError, match=r"did you mean cluster\.yaml\?"):
        load_document(tmp_path / "clustr.yaml")


def test_names_cannot_steer_the_terminal(tmp_path):
    path = tmp_path / "\x1b[31m.yaml"
    path.write_text("a: [")
    with pytest.raises(InputError) as caught:
        load_document(path)
    assert "\x1b" not in str(caught.value)
    assert "\\x1b[31m.yaml" in str(caught.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    """Fuzz: InputError or a document, nothing else."""
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(content)
    with suppress(InputError):
        assert load_document(path).file == str(path)


trees = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(trees, st.sampled_from([None, 1]))
def test_json_is_read_back_with_every_line(data, indent):
    """What json writes, the door gives back, and each place has the line it stands on."""
    text = json.dumps(data, indent=indent)
    document = parse_document(text, "x.json")
    assert document.data == data
    assert all(1 <= line <= text.count("\n") + 1 for line in document.lines.values())
