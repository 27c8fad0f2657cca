"""Plans as files: equal when read back, and refused with every fault when cut off or tampered with."""

import json
import re

import pytest
from generators import jobs_and_strategies
from hypothesis import given, settings
from hypothesis import strategies as st

from traincast.sim.errors import InputError
from traincast.sim.model.decoder import Decoder
from traincast.sim.model.model import Model
from traincast.sim.plan.action import Kind, parse_actions
from traincast.sim.plan.job import Job
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.plan import Plan, Stage
from traincast.sim.plan.plan_file import plan_from_dict, plan_to_dict, read_plan, write_plan
from traincast.sim.plan.schedules import schedule_names
from traincast.sim.plan.strategy import Strategy

MODEL = Model(
    name="small",
    source="by hand",
    decoder=Decoder(
        layers=4, hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=96, vocab=256, max_positions=128
    ),
)
JOB = Job(model=MODEL, global_batch=4, seq_len=32, learning_rate=3e-4)
BY_HAND = Plan(
    job=JOB,
    strategy=Strategy(dp=2, pp=2, micro_batch=1, bucket_bytes=1000),
    stages=(
        Stage(index=0, first_layer=0, end_layer=3, buckets=((2, 1), (0,))),
        Stage(index=1, first_layer=3, end_layer=6, buckets=((5, 4, 3),)),
    ),
    actions=(
        parse_actions(
            "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0B0 0RECV_B1 0B1 0REDUCE_GRAD0 0REDUCE_GRAD1 0STEP"
        ),
        parse_actions("1RECV_F0 1F0 1B0 1SEND_B0 1RECV_F1 1F1 1B1 1SEND_B1 1REDUCE_GRAD0 1STEP"),
    ),
    cluster={"name": "here", "accelerators": 4},
)
TEXT = json.dumps(plan_to_dict(BY_HAND), indent=2)


def test_a_plan_reads_back_equal(tmp_path):
    write_plan(BY_HAND, tmp_path / "p.json")
    assert read_plan(tmp_path / "p.json") == BY_HAND


def test_the_text_form(tmp_path):
    """People read and diff it: a list of actions is one line."""
    write_plan(BY_HAND, tmp_path / "p.json")
    text = (tmp_path / "p.json").read_text()
    assert '    "1RECV_F0 1F0 1B0 1SEND_B0 1RECV_F1 1F1 1B1 1SEND_B1 1REDUCE_GRAD0 1STEP"\n' in text
    assert text.startswith('{\n  "schema": "traincast.plan/1",\n')


def test_actions_may_be_lists():
    """Others may write one text an action."""
    data = plan_to_dict(BY_HAND)
    data["actions"] = [text.split() for text in data["actions"]]
    assert plan_from_dict(data) == BY_HAND


@settings(deadline=None, max_examples=60)
@given(jobs_and_strategies())
def test_every_lawful_plan_reads_back_equal(drawn):
    """Through JSON text, so floats and tuples are what they were."""
    plan = make_plan(*drawn)
    assert plan_from_dict(json.loads(json.dumps(plan_to_dict(plan)))) == plan


def message(tmp_path, text: str) -> str:
    """What is said of a plan file, with the first word of every line that is named instead of its number."""
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_plan(path)
    lines = text.splitlines()

    def first_word(match: re.Match) -> str:
        word = re.search(r"\w+", lines[int(match[1]) - 1])
        return f"p.json:{word[0] if word else ''}:"

    return re.sub(r"p\.json:(\d+):", first_word, str(caught.value).replace(str(path), "p.json"))


def test_a_newer_schema_says_so(tmp_path):
    """Instead of complaining of every key that a later version may have changed."""
    assert message(tmp_path, TEXT.replace("plan/1", "plan/2").replace('"job"', '"jobs"')) == (
        "p.json:schema: schema: 'traincast.plan/2' -> expected traincast.plan/1; "
        "it was written by a newer traincast; update this one"
    )


def test_everything_tampered_with_is_told_at_once(tmp_path):
    text = (
        TEXT.replace('"dp": 2', '"dp": true')
        .replace('"tp": 1', '"tpp": 1')
        .replace('"seq_len": 32', '"seq_len": "long"')
        .replace('"hidden": 64', '"hidden": 64000000000')
        .replace("1F0 ", "1X0 ")
        .replace('"end_layer": 6', '"end_layer": 6.5')
    )
    assert message(tmp_path, text) == (
        "p.json:dp: strategy.dp: true -> expected a whole number\n"
        "p.json:tpp: strategy.tpp: unknown key; did you mean tp?\n"
        "p.json:seq_len: job.seq_len: 'long' -> expected a whole number\n"
        "p.json:hidden: model.decoder.hidden: 64000000000 -> expected at most 1000000000\n"
        "p.json:end_layer: stages[1].end_layer: 6.5 -> expected a whole number\n"
        "p.json:1RECV_F0: actions[1]: '1X0' is not an action; expected a stage, "
        f"one of {' '.join(Kind)}, an index\n"
        "6 errors"
    )


@pytest.mark.parametrize(
    ("good", "bad", "expected"),
    [
        ('"schema": "traincast.plan/1",\n', "", "p.json: schema: missing -> expected traincast.plan/1"),
        (
            '"traincast.plan/1"',
            '"traincast.cluster/1"',
            "p.json:schema: schema: 'traincast.cluster/1' -> expected traincast.plan/1",
        ),
        (
            '"global_batch": 4',
            '"global_batch": 5',
            "p.json:global_batch: job.global_batch: 5 -> expected a multiple of dp 2 × micro_batch 1 = 2",
        ),
        (
            '"global_batch": 4',
            '"global_batch": 1000000000',
            "p.json:0F0: actions[0]: 11 actions for 500000000 micro-batches"
            " -> expected two or more for each\n"
            "p.json:1RECV_F0: actions[1]: 10 actions for 500000000 micro-batches"
            " -> expected two or more for each\n"
            "2 errors",
        ),
        (
            '"schedule": "1f1b"',
            '"schedule": "2f2b"',
            f"p.json:schedule: strategy.schedule: 2f2b -> expected {' | '.join(schedule_names())}",
        ),
        ('"layers": 4', '"layers": 0', "p.json:layers: model.decoder.layers: 0 -> expected at least 1"),
        (
            '"layers": 4',
            '"layers": 100000000',
            "p.json:layers: model.decoder.layers: 100000000 -> expected at most 10000",
        ),
        (
            '"norm": "rmsnorm"',
            '"norm": "batchnorm"',
            "p.json:norm: model.decoder.norm: 'batchnorm' -> expected rmsnorm | layernorm",
        ),
        (
            '"end_layer": 6',
            '"end_layer": 7',
            "p.json:buckets: stages[1].buckets: buckets of 3 layers -> expected layers 3 to 6, each once",
        ),
        ("1F1 ", "", "p.json:1RECV_F0: actions[1]: nothing -> expected 1F1"),
        ("1F1 ", "1F1 1F1 ", "p.json:1RECV_F0: actions[1]: 1F1 2 times -> expected once"),
        (
            " 1REDUCE_GRAD0",
            "",
            "p.json:1RECV_F0: actions[1]: REDUCE_GRAD of (stage, bucket) []"
            " -> expected each bucket of the rank's stages: [(1, 0)]",
        ),
        (
            '"shards": [],',
            '"shards": [[0]],',
            "p.json:shards: shards: 1 lists -> expected 0, one for each server",
        ),
    ],
)
def test_bad_plans(tmp_path, good, bad, expected):
    """Structure, rules of job and strategy, and the plan's own order, with the line."""
    assert TEXT.count(good) == 1
    assert message(tmp_path, TEXT.replace(good, bad)) == expected


def test_a_deadlock_is_shown_on_the_grid(tmp_path):
    """An order in which ranks would wait for ever is refused before anything runs."""
    text = message(
        tmp_path, TEXT.replace("0F0 0SEND_F0", "0RECV_B0 0F0 0SEND_F0").replace(" 0RECV_B0 0B0", " 0B0")
    )
    assert text.startswith("p.json:actions: actions: ranks wait for each other: rank 0 waits at 0RECV_B0")
    assert "<-- ERROR HERE" in text


@given(st.integers(0, len(TEXT) - 2))
def test_a_plan_cut_off_anywhere_is_refused(tmp_path_factory, length):
    """However much of the file a full disk kept."""
    path = tmp_path_factory.getbasetemp() / "cut.json"
    path.write_text(TEXT[:length])
    with pytest.raises(InputError):
        read_plan(path)


@pytest.mark.parametrize(
    ("synchrony", "earlier"),
    [
        ("sync", "0PULL0 0PULL1 0PUSH0 0PUSH1 0STEP"),
        ("async", "0PULL0 0PUSH0 0STEP 0PULL1 0PUSH1 0STEP"),
    ],
)
def test_servers_of_earlier_versions_are_read(synchrony, earlier):
    """They wrote 0 for every server, STEP for its step, and pushed all gradients at once after backward."""
    servers = {"dp": 2, "gradient_exchange": "parameter_server", "servers": 2, "synchrony": synchrony}
    plan = make_plan(JOB, Strategy(**servers, overlap_gradients=False))
    data = {**plan_to_dict(plan), "server_actions": [earlier] * 2}
    assert plan_from_dict(data) == plan
    data["strategy"] = Strategy(**servers).to_dict()
    assert plan_from_dict(data).portions == plan.portions


def test_averages_of_earlier_versions_have_their_local_steps():
    """They left to readers that a worker steps its own parameters."""
    strategy = Strategy(dp=2, gradient_exchange="parameter_server", servers=1, synchrony="local:2")
    plan = make_plan(JOB, strategy)
    data = plan_to_dict(plan)
    assert data["actions"][0].count("0STEP") == 2
    assert plan_from_dict({**data, "actions": [data["actions"][0].replace(" 0STEP", "")]}) == plan


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ((" 0PUSH.1", ""), "actions[0]: 0PUSH.0 -> expected 0PUSH.0 0PUSH.1, in any order"),
        (("0PULL.0 0PULL.1", "0PULL"), "actions[0]: 0PULL -> expected 0PULL.0 0PULL.1, in any order"),
    ],
)
def test_a_worker_pulls_and_pushes_every_bucket(change, expected):
    data = plan_to_dict(make_plan(JOB, Strategy(dp=2, gradient_exchange="parameter_server", servers=2)))
    data["actions"] = [data["actions"][0].replace(*change)]
    with pytest.raises(InputError) as caught:
        plan_from_dict(data)
    assert expected in str(caught.value)


def test_a_bucket_lies_on_one_server():
    data = plan_to_dict(make_plan(JOB, Strategy(dp=2, gradient_exchange="parameter_server", servers=2)))
    first, second = data["stages"][0]["buckets"]
    data["stages"][0]["buckets"] = [[first[0], *second[1:]], [second[0], *first[1:]]]
    with pytest.raises(InputError, match=r"buckets\[0\]: layers .* -> expected layers of one server's shard"):
        plan_from_dict(data)


@pytest.mark.parametrize(
    ("fields", "left_out"),
    [
        ({"sharding": "fsdp", "prefetch": 2}, [("UNSHARD2", "UNSHARD")]),
        ({"offload": "both"}, [("0OFFLOAD0 ", ""), ("0OFFLOAD1 ", ""), ("0FETCH0 ", ""), ("0FETCH1 ", "")]),
    ],
)
def test_what_earlier_versions_left_to_readers_is_filled_in(fields, left_out):
    plan = make_plan(JOB, Strategy(dp=2, **fields))
    data = plan_to_dict(plan)
    earlier = data["actions"][0]
    for word, instead in left_out:
        assert word in earlier
        earlier = earlier.replace(word, instead)
    assert plan_from_dict({**data, "actions": [earlier]}) == plan


@pytest.mark.parametrize(
    ("synchrony", "actions", "expected"),
    [
        ("sync", "0PULL0 0PULL1 0PUSH0 1PUSH1 0APPLY", "1PUSH1 instead of 0PUSH1"),
        ("sync", "0PULL0 0PULL1 0PUSH0 0PUSH1", "nothing instead of 0APPLY"),
        ("sync", "0PULL0 0PULL1 0PUSH0 0APPLY 0PUSH1", "another order"),
        ("async", "0PULL0 0PUSH0 0APPLY0 0PUSH1 0PULL1 0APPLY1", "another order"),
        ("async", "0PULL1 0PUSH1 0APPLY1 0PULL0 0PUSH0 0APPLY0", ""),
        ("sync", "0PULL0 0PUSH0 0APPLY 0PULL1 0PUSH1", "another order"),
    ],
)
def test_a_server_does_all_of_its_own_in_order(synchrony, actions, expected):
    servers = {"gradient_exchange": "parameter_server", "servers": 1, "overlap_gradients": False}
    strategy = Strategy(dp=2, synchrony=synchrony, **servers)
    data = {**plan_to_dict(make_plan(JOB, strategy)), "server_actions": [actions]}
    if not expected:
        assert " ".join(map(str, plan_from_dict(data).server_actions[0])) == actions
        return
    with pytest.raises(InputError) as caught:
        plan_from_dict(data)
    assert f"server_actions[0]: {expected} -> expected" in str(caught.value)


@settings(deadline=None)
@given(st.data())
def test_any_value_put_anywhere_is_read_or_refused(data):
    """Tampering gives a sound plan or an InputError, never another exception."""
    plan = json.loads(TEXT)
    node, key = plan, data.draw(st.sampled_from(sorted(plan)))
    while isinstance(node[key], dict | list) and node[key] and data.draw(st.booleans()):
        node = node[key]
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
    node[key] = data.draw(
        st.sampled_from([None, True, -1, 0, 1, 10**9, 2.5, "", "x", "0F0", [], [[]], {}, [0], "9" * 5000])
    )
    try:
        read = plan_from_dict(plan)
    except InputError:
        return
    assert plan_from_dict(plan_to_dict(read)) == read


@pytest.mark.parametrize("buckets", [[], [[0]]])
def test_stages_beyond_the_model_are_refused_before_they_are_counted(buckets):
    """A layer number of ten digits is a fault, not a list of as many layers."""
    plan = json.loads(TEXT)
    plan["stages"][0] |= {"end_layer": 10**9, "buckets": buckets}
    with pytest.raises(InputError, match=r"stages\[0\].* layers 0 to 999999999"):
        plan_from_dict(plan)
