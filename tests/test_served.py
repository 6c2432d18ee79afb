"""Models behind a server: the same numbers and texts as in memory, patience, secrets kept, and errors that say what to do."""

import math

import pytest

import tiny as make
from fakeserver import FakeServer, serve
from polygraft import sources
from polygraft.errors import InputError, RecipeError, ResourceError, UserError
from polygraft.evals.asking import Asker
from polygraft.evals.engines.base import Decoding
from polygraft.evals.engines.client import TRIES, Address, Client
from polygraft.evals.engines.hf import Scorer
from polygraft.evals.engines.served import ServedIds, ServedText, connect
from polygraft.evals.responses import About, Store

PAIRS = [("How many?", " 12 + 7 = 19"), ("How many?", " 12 - 7 = 5"), ("Q", "x"), ("trailing space ", "joined"), ("again", ""),
         ("a longer context ", "é"), ("短い文", "はい"), ("How many?", " 12")]
SECRET = "sk-verySecretKey-1234"


@pytest.fixture(scope="module")
def scorer():
    return Scorer(make.model("llama", layers=2, seed=3), make.tokenizer(), batch_tokens=64)


@pytest.fixture
def fake(scorer):
    one = Scorer(scorer.model, scorer.tokenizer, batch_tokens=64)
    one.leading = [1]  # as a tokenizer that puts BOS before every text: servers do
    return FakeServer(one, max_model_len=128)


@pytest.fixture
def url(fake):
    with serve(fake) as url:
        yield url


@pytest.fixture
def folder(tmp_path):
    tokenizer = make.tokenizer()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


class Waits(list):
    """Instead of sleeping, what would have been waited."""

    def __call__(self, seconds):
        self.append(seconds)


def client(url, waits=None, **more):
    return Client(Address.parse(f"server:{url}"), sleep=Waits() if waits is None else waits, timeout=5, **more)


def text_engine(url, options=""):
    return connect(f"server:{url}{options}", client=Client(Address.parse(f"server:{url}{options}"), sleep=Waits(), timeout=5))[0]


def scored(engine, pairs=PAIRS):
    found = {}
    engine.pairs(pairs, found.update)
    return [found[i] for i in range(len(pairs))]


def written(engine, prompts, decoding):
    found = {}
    engine.generate(prompts, decoding, found.update)
    return [found[i] for i in range(len(prompts))]


def same(found, want):
    assert [g for _, g in found] == [g for _, g in want]
    assert [n for n, _ in found] == pytest.approx([n for n, _ in want], abs=1e-4)


# ------------------------------------------------------------------------------------------------------------- agreement


def test_with_a_tokenizer_everything_is_as_in_memory(scorer, fake, url, folder):
    fake.scorer.leading = []  # the tokenizer in `folder` adds nothing, and ids are sent as they are
    engine, _ = connect(f"server:{url}?tokenizer={folder}")
    assert isinstance(engine, ServedIds) and engine.name == "tiny" and engine.max_length == 126
    pairs = [*PAIRS, ("", "start")]
    same(scored(engine, pairs), scored(scorer, pairs))
    decoding = Decoding(6, ("\n",))
    assert written(engine, ["one", "a longer prompt", ""], decoding) == written(scorer, ["one", "a longer prompt", ""], decoding)
    texts = ["twelve apples and seven pears, nineteen fruits" * 3, "短い文", ""]
    for got, want in zip(engine.documents(texts, 48, 16), scorer.documents(texts, 48, 16), strict=True):
        assert got.nats == pytest.approx(want.nats, abs=1e-3) and (got.bytes, got.tokens) == (want.bytes, want.tokens)
    talk = [{"role": "user", "content": "Hi"}]
    assert engine.chat(talk, "Yes") == scorer.chat(talk, "Yes") and engine.count("abc") == scorer.count("abc")


def test_without_a_tokenizer_likelihoods_and_answers_are_those_of_the_servers_own(fake, url):
    engine = text_engine(url)
    assert isinstance(engine, ServedText)
    same(scored(engine), scored(fake.scorer))
    assert written(engine, ["one", "two"], Decoding(6)) == written(fake.scorer, ["one", "two"], Decoding(6))


@pytest.mark.parametrize("prefix", ["", "Answer:"])
def test_a_conversation_is_written_by_the_server(prefix, fake, url):
    engine, talk = text_engine(url), [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert written(engine, [engine.chat(talk, prefix)], Decoding(5)) == written(fake.scorer, [fake.scorer.chat(talk, prefix)], Decoding(5))
    assert fake.seen[-1][0] == "/v1/chat/completions"


def test_tokens_that_merge_at_the_seam_are_counted_once(fake, url):
    """When the server cuts context and continuation otherwise together, the difference of the two texts' likelihoods is left."""
    engine = text_engine(url)
    whole, inner = engine.server.echo("Q joined"), engine.server.echo

    def merged(prompt):
        echo = inner(prompt)
        if prompt != "Q":
            return echo
        return type(echo)((*echo.tokens[:-1], "another"), (*echo.nats[:-1], -2.5), echo.greedy)
    engine.server.echo = merged
    [(nats, _)] = scored(engine, [("Q", " joined")])
    assert nats == pytest.approx(math.fsum(whole.nats[1:]) + 2.5)


def test_records_are_the_same_through_the_store(scorer, fake, url, folder, tmp_path):
    """The same questions through an `Asker`, in memory and served."""
    fake.scorer.leading = []
    about, prompts = About("t@1", "en"), ["one", "two", "three"]
    found = []
    for engine in (scorer, connect(f"server:{url}?tokenizer={folder}")[0]):
        asker = Asker(engine, Store(None, "m"))
        pairs = asker.pairs([(about, *p) for p in PAIRS])
        texts = asker.generate([(about, p, Decoding(4)) for p in prompts])
        found.append(([round(p.nats, 3) for p in pairs], [p.greedy for p in pairs], [(t.text, t.tokens, t.finished) for t in texts]))
    assert found[0] == found[1]


def test_answers_stop_where_they_are_told_also_by_stops_that_a_server_does_not_take(fake, url):
    engine = text_engine(url)
    [whole] = written(engine, ["one"], Decoding(12))
    stop = whole.text[4]
    [cut] = written(engine, ["one"], Decoding(12, ("\ufffe1", "\ufffe2", "\ufffe3", "\ufffe4", stop)))
    assert cut.text == whole.text.partition(stop)[0] and cut.finished and not whole.finished
    assert len(fake.seen[-1][1]["stop"]) == 4


def test_sampling_is_asked_for_with_its_seed(fake, url):
    written(text_engine(url), ["one"], Decoding(3, (), 0.7, 0.9, 5))
    sent = fake.seen[-1][1]
    assert (sent["temperature"], sent["top_p"], sent["seed"]) == (0.7, 0.9, 5) and "stop" not in sent


@pytest.mark.parametrize("at_once", [1, 3])
def test_every_request_is_answered_once_whatever_goes_on_at_once(at_once, fake, url):
    engine, prompts = text_engine(url, f"?at_once={at_once}"), [f"p{i}" for i in range(9)]
    assert written(engine, prompts, Decoding(2)) == written(fake.scorer, prompts, Decoding(2))
    assert len([p for p, _ in fake.seen if p == "/v1/completions"]) == 9


# -------------------------------------------------------------------------------------------------------------- patience


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again_more_and_more_slowly(status, fake, url):
    left = [3]

    def busy(path, payload):
        left[0] -= 1
        return (status, {}, b"busy") if left[0] >= 0 else None
    fake.before = busy
    waits = Waits()
    assert client(url, waits).ask("/models")["data"][0]["id"] == "tiny"
    assert waits == [1.0, 2.0, 4.0]


@pytest.mark.parametrize(("header", "wait"), [("7", 7.0), ("9999", 60.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 1.0), ("-1", 1.0)])
def test_a_server_that_says_how_long_is_believed(header, wait, fake, url):
    left, waits = [1], Waits()

    def busy(path, payload):
        left[0] -= 1
        return (429, {"Retry-After": header}, b"") if left[0] >= 0 else None
    fake.before = busy
    client(url, waits).ask("/models")
    assert waits == [wait]


def test_a_server_that_stays_busy_is_given_up_and_what_it_answered_is_kept(fake, url, tmp_path):
    answered = []

    def busy(path, payload):
        if path == "/v1/completions":
            answered.append(payload["prompt"])
            return (503, {}, b"overloaded") if payload["prompt"] == "bad" else None
        return None
    fake.before = busy
    asker = Asker(text_engine(url, "?at_once=1"), Store(tmp_path, "m"))
    asked = [(About("t"), p, Decoding(2)) for p in ("a", "b", "bad", "c")]
    with pytest.raises(ResourceError, match=f"overloaded.*{TRIES} tries"):
        asker.generate(asked)
    answered.clear()
    fake.before = lambda path, payload: answered.append(payload.get("prompt")) if path == "/v1/completions" else None
    assert len(Asker(text_engine(url), Store(tmp_path, "m")).generate(asked)) == 4
    assert sorted(answered) == ["bad", "c"]


def test_no_server_at_all():
    waits = Waits()
    with pytest.raises(ResourceError, match="does not answer") as e:
        client("http://127.0.0.1:9/v1", waits).ask("/models")
    assert len(waits) == TRIES - 1 and "is it running" in str(e.value)


# -------------------------------------------------------------------------------------------------------------- refusals


def reply(status, body):
    return lambda path, payload: (status, {}, body) if path != "/v1/models" else None


def drop(name):
    def edit(answer):
        answer.get("choices", [{}])[0].pop(name, None)
        return answer
    return edit


def only_generated(answer):
    """llama.cpp's server: likelihoods of what it wrote, none of the prompt (ggml-org/llama.cpp#27174)."""
    for c in answer.get("choices", []):
        c["logprobs"] = {k: v[-1:] for k, v in c["logprobs"].items()}
    return answer


def newer_shape(answer):
    for c in answer.get("choices", []):
        c["logprobs"] = {"content": [{"token": "a", "logprob": -1}]}
    return answer


def nan(answer):
    for c in answer.get("choices", []):
        c["logprobs"]["token_logprobs"][1] = None
    return answer


@pytest.mark.parametrize(("before", "edit", "says"), [
    (None, drop("logprobs"), "does not give the likelihood"), (None, only_generated, "1 likelihoods for"), (None, newer_shape, "choice tasks"),
    (reply(400, b"Only no echo is supported"), None, "does not give the likelihood"), (None, nan, "not numbers"),
    (reply(400, b"too long"), None, "may not fit"), (reply(401, b"who?"), None, "key"), (reply(302, b""), None, "302"),
    (reply(200, b"<html>"), None, "not a JSON object"), (reply(200, b"[1]"), None, "not a JSON object"), (reply(413, b""), None, "context"),
])
def test_what_a_server_cannot_do_is_said_with_what_to_do(before, edit, says, fake, url):
    engine = text_engine(url)
    fake.before, fake.edit = before or fake.before, edit or fake.edit
    with pytest.raises(UserError) as e:
        scored(engine)
    assert says in str(e.value) and url in str(e.value)


@pytest.mark.parametrize("body", [b"{}", b'{"choices": []}', b'{"choices": [null]}'])
def test_an_answer_without_choices(body, fake, url):
    engine = text_engine(url)
    fake.before = reply(200, body)
    with pytest.raises(InputError, match="no `choices`"):
        written(engine, ["one"], Decoding(2))


def test_a_redirect_is_not_followed(fake, url):
    fake.before = lambda path, payload: (307, {"Location": "http://127.0.0.1:9/elsewhere"}, b"")
    with pytest.raises(InputError, match="307"):
        connect(f"server:{url}")


@pytest.mark.parametrize(("models", "name", "says"), [
    (("llama-7b", "qwen-7b"), "#qwen7b", "did you mean `qwen-7b`?"), (("a", "b"), "", "a, b"), ((), "", "none"), (("tiny",), "#other", "known: tiny"),
])
def test_a_model_that_is_not_served(models, name, says, fake, url):
    fake.models = models
    with pytest.raises(RecipeError) as e:
        connect(f"server:{url}{name}")
    assert says in str(e.value)


def test_what_needs_the_tokenizer_says_so(url):
    engine = text_engine(url)
    for ask in (lambda: scored(engine, [("", "start")]), lambda: scored(engine, [(engine.chat([]), " a")]), lambda: engine.documents(["a"], 8, 4)):
        with pytest.raises(InputError, match=r"\?tokenizer="):
            ask()


def test_another_models_tokenizer_is_refused(fake, url, folder):
    with pytest.raises(RecipeError, match="not the one that the server uses"):  # the server puts BOS first, this tokenizer does not
        connect(f"server:{url}?tokenizer={folder}")


@pytest.mark.parametrize("where", ["no/such/folder", "/"])
def test_a_tokenizer_that_is_not_there(where, url):
    with pytest.raises(InputError, match="tokenizer"):
        connect(f"server:{url}?tokenizer={where}")


@pytest.mark.parametrize(("spec", "says"), [
    ("server:", "http://HOST"), ("server:ftp://host/v1", "http://HOST"), ("server:file:///etc/passwd", "http://HOST"), ("server:http:///v1", "http://HOST"),
    ("server:http://me:secretpass@host/v1", "environment variable"), ("server:http://host/v1?keys=A", "did you mean `key`?"),
    ("server:http://host/v1?at_once=many", "not a number"), ("server:http://host/v1?at_once=0", "not a number"), ("server:http://host/v1?context=-1", "not a number"),
])
def test_bad_addresses(spec, says):
    with pytest.raises(RecipeError) as e:
        Address.parse(spec)
    assert says in str(e.value) and "secretpass" not in str(e.value)


@pytest.mark.parametrize("what", ["documents", "chat_choices"])
def test_what_needs_the_tokenizer_is_refused_before_anything_is_asked(what):
    wanted = {"documents": False, "chat_choices": False, what: True}
    Address.parse("server:http://host/v1?tokenizer=x").refuse(**wanted)
    with pytest.raises(InputError, match="tokenizer"):
        Address.parse("server:http://host/v1").refuse(**wanted)


def test_an_address_with_everything():
    found = Address.parse("server:https://host:8/v1/?key=K&identity=abc&tokenizer=org/name&at_once=3&context=99#org/a%20b")
    assert found == Address("https://host:8/v1", "org/a b", "K", "abc", "org/name", 3, 99)


def test_offline_allows_this_machine_only(url):
    connect(f"server:{url}", offline=True)
    with pytest.raises(InputError, match="offline"):
        connect("server:http://example.invalid/v1", offline=True)


# --------------------------------------------------------------------------------------------------------------- secrets


def test_the_key_is_sent_and_never_shown(fake, url, monkeypatch):
    monkeypatch.setenv("MY_SERVER", SECRET)
    fake.key = SECRET
    engine = text_engine(url, "?key=MY_SERVER")
    written(engine, ["one"], Decoding(2))
    assert all(h["Authorization"] == f"Bearer {SECRET}" for h in fake.headers)
    fake.key = "another"
    with pytest.raises(InputError, match="401") as e:
        written(engine, ["one"], Decoding(2))
    assert SECRET not in str(e.value) and "[redacted]" in str(e.value)


def test_a_key_that_is_not_set_is_named(url, monkeypatch):
    monkeypatch.delenv("MY_SERVER", raising=False)
    with pytest.raises(InputError, match="MY_SERVER"):
        connect(f"server:{url}?key=MY_SERVER")


# -------------------------------------------------------------------------------------------------------------- identity


def test_only_a_model_that_somebody_vouches_for_has_an_identity(fake, url):
    def identity(options):
        return connect(f"server:{url}{options}")[1]
    assert identity("") is None
    first = identity("?identity=v1")
    assert first and first == identity("?identity=v1") == identity("?identity=v1&at_once=2") != identity("?identity=v2")
    fake.entry["root"] = "other/weights"
    assert identity("?identity=v1") != first


def test_a_served_model_has_no_weights_for_other_verbs():
    source = sources.resolve("server:http://host/v1#m")
    assert source.kind == "server" and source.identity == "server:http://host/v1#m" and source.missing == {}
    for use in (lambda: source.weights, lambda: sources.open_model(source.spec)):
        with pytest.raises(InputError, match="only `eval`"):
            use()
    from polygraft.model import load

    with pytest.raises(InputError, match="only `eval`"):
        load(source)


def test_an_evaluation_of_a_served_model_has_the_records_of_the_model_in_memory(tiny, tmp_path):
    """The whole step: choices, written answers and bits per byte of one model, in memory and behind a server."""
    import json
    from pathlib import Path

    from polygraft.evals import steps
    from polygraft.evals.settings import EvalConfig
    from polygraft.model import load
    from polygraft.step import Context

    folder = tiny("llama", layers=2, seed=3, max_position_embeddings=2048)
    live = load(folder, dtype="float32")
    context = Context(model=sources.resolve, data=Path, offline=True)
    with serve(FakeServer(Scorer(live.model, live.tokenizer), max_model_len=2048)) as url:
        config = EvalConfig(models=(str(folder), f"server:{url}?tokenizer={folder}"), tasks=("problems", "problems-generate"), dtype="float32",
                            langs=("en",), limit=3, corpora={"en": "sampler"}, max_bytes=600)
        assert not steps.plan(config, context).problems
        result = steps.run_step(config, context, tmp_path)
    kept = ("nats", "choice_nats", "output", "finished", "tokens", "bytes", "correct", "scores", "prompt_sha256_16")
    files = sorted((tmp_path / "samples").iterdir())
    assert len(files) == 6 and any("given by a server" in c for c in result.caveats)
    rows = [[{k: v for k, v in json.loads(line).items() if k in kept} for line in f.read_text("utf-8").splitlines()] for f in files]
    for here, there in zip(rows[::2], rows[1::2], strict=True):
        assert len(here) == len(there) > 0
        for a, b in zip(here, there):
            assert flat(a) == pytest.approx(flat(b), abs=2e-3) and set(a) == set(b)


def flat(value):
    """Numbers of a record in order; texts as their hash."""
    if isinstance(value, dict):
        return [x for k in sorted(value) for x in flat(value[k])]
    if isinstance(value, list):
        return [x for v in value for x in flat(v)]
    return [float(hash(value) % 10**6) if isinstance(value, str) else float(value or 0)]
