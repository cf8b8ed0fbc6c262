"""Fields of a trial become flags, keys, columns and parameters; values are checked first."""

import dataclasses
import importlib
import logging
import math
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from palmkit import cli, storage
from palmkit.cli import main
from palmkit.experiments import config, rows, trials
from palmkit.experiments.trials import FIELDS, Trial

# A value of each field that is not its default.
OTHER = {
    "method": "coop",
    "dataset": "elsewhere",
    "fold": 2,
    "seed": 1,
    "shots": 4,
    "protocol": "released",
    "regime": "support",
    "stochastic": ["bn0"],
    "epochs": 7,
    "batch_size": 3,
    "lr": 0.5,
    "momentum": 0.5,
    "crop": "start",
    "crop_seed": 9,
    "autocast": True,
    "options": {"rare": {"dog": 1}},
}


def test_every_field_of_a_trial_has_a_flag_a_column_and_a_parameter():
    fields = [field.name for field in dataclasses.fields(Trial)]
    assert fields == list(FIELDS) == list(OTHER)
    choices = {FIELDS[name].several or name for name in fields}
    assert choices == {flag.choice for flag in config.FLAGS.values()} & choices
    assert choices <= set(config.CHOICES)
    assert set(trials.SETTINGS) | set(trials.AXES.values()) == set(fields)
    described = cli._parser()[1]["run"].format_help()
    for name, flag in config.FLAGS.items():
        assert f"--{name} " in described and flag.setting.help, name
    assert all(FIELDS[name].help for name in fields)


@pytest.mark.parametrize("name", [name for name in OTHER if name != "dataset"])
def test_every_field_of_a_trial_is_in_its_row_s_key(name):
    """The dataset's content is in it by its digest; its name is not."""
    released = {"protocol": "released"} if FIELDS[name].protocol else {}
    method = "kernel-ridge" if name == "regime" else "palm"  # PALM has nothing to choose
    plain = Trial(method, "x", **released)
    other = Trial(**{"method": method, "dataset": "x", **released, name: OTHER[name]})
    assert rows.trial_key(plain, "d", "m") != rows.trial_key(other, "d", "m")
    for digests in (("e", "m"), ("d", "n"), ("d", "m", "source")):
        assert rows.trial_key(plain, "d", "m") != rows.trial_key(plain, *digests)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(epochs=-1), "epochs=-1: use a whole number, 0 or more"),
        (dict(epochs=2.5), "epochs=2.5: use a whole number"),
        (dict(shots=0), "shots=0: use 1 or more, or -1"),
        (dict(shots=-2), "shots=-2: use 1 or more, or -1"),
        (dict(batch_size=0), "batch_size=0: use a whole number, 1 or more"),
        (dict(lr=0), "lr=0: use a number over 0"),
        (dict(lr=math.nan), "lr=nan: use a number over 0"),
        (dict(lr=math.inf), "lr=inf: use a number over 0"),
        (dict(lr="fast"), "lr='fast': use a number over 0"),
        (dict(momentum=1), "momentum=1: use a number from 0 on and below 1"),
        (dict(crop="middle"), "crop='middle': use 'random', 'start', 'center' or a start"),
        (dict(crop=-5), "crop=-5: use 'random'"),
        (dict(seed=-1), "seed=-1: use a whole number, 0 or more"),
        (dict(seed=2**32), "below 2"),
        (dict(fold="first"), "fold='first': use a whole number"),
        (dict(autocast="yes"), "autocast='yes': use True or False"),
        (dict(protocol="frozn"), "no protocol 'frozn'.*did you mean 'frozen'"),
        (dict(stochastic=["bn0"]), "in the frozen one nothing is random"),
        (dict(options={"contxt": 1}), "no palm option 'contxt'; there are init"),
        (dict(options={"init": {1, 2}}), "use values that JSON has"),
        (dict(options={"pca_dim": 0}), "pca_dim=0: use a whole number"),
        (dict(options={"corruption": ["wind", 1]}), "wind"),
        (dict(options={"corruption": "noise"}), r"use \[kind, strength\]"),
        (dict(options={"rare": {"dog": 0}}), "0 clips of 'dog'; use 1 or more"),
        (dict(protocol="released", options={"pca_dim": 2}), "only in the frozen protocol"),
    ],
)
def test_values_that_cannot_be_run_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Trial("palm", "x", **settings)


def test_equal_values_are_one_trial():
    assert Trial("palm", "x", lr=1) == Trial("palm", "x", lr=1.0)
    one, two = (
        Trial("palm", "x", options={"corruption": kind(["noise", 0])}) for kind in (list, tuple)
    )
    assert one == two and rows.trial_key(one, "d", "m") == rows.trial_key(two, "d", "m")
    assert Trial("zeroshot", "x", shots=4, epochs=9) == Trial("zeroshot", "x")
    assert Trial("zeroshot", "x").shots == 0


def test_methods_and_duplicates():
    assert trials.expand_methods(["all", "palm-dagger", "palm"]) == [
        *trials.PAPER_METHODS,
        "palm-dagger",
    ]
    assert trials.expand_methods("all") == [*trials.PAPER_METHODS]
    grid = trials.dataset_grid(["coop", "coop"], "x", [1, 1], [0])
    assert [(trial.method, trial.fold) for trial in grid] == [("coop", 1)]


def test_random_parts_are_those_of_the_train_mode():
    from palmkit.protocols.train_mode import STOCHASTIC

    assert trials.STOCHASTIC == STOCHASTIC


# Flags, files and profiles.


def choices_of(*flags, **config_values):
    said = {
        key.removeprefix("choice:"): value
        for key, value in vars(cli._parse(["run", *flags])).items()
        if key.startswith("choice:")
    }
    said = {name: config.parse_flag(name, value) for name, value in said.items()}
    return config.choose(said, config_values)


def test_flags_go_before_the_file_and_the_file_before_the_profile():
    choices = choices_of("--shots", "4", "--quick", shots=8, epochs=3, seed=[5])
    values = choices.values
    assert (values["shots"], values["epochs"], values["seeds"]) == (4, 3, [5])
    assert (values["folds"], values["methods"], values["datasets"]) == ("first", "all", ["default"])
    assert choices.given == {"shots", "epochs", "seeds", "profile"}


def test_a_value_of_the_file_that_is_the_default_is_not_given():
    assert choices_of(epochs=50, lr=0.05).given == set()
    assert choices_of("--epochs", "50").given == {"epochs"}


def test_all_flags_of_a_trial():
    choices = choices_of(
        *("--method", "all", "palm-dagger", "--dataset", "a", "a", "--fold", "1", "2"),
        *("--lr", "0.1", "--batch-size", "8", "--momentum", "0", "--crop-seed", "3"),
        *("--crop", "44100", "--protocol", "released", "--stochastic", "bn0", "crops"),
        *("--autocast", "--option", "context_length=8", 'names={"dog": "wolf"}', "init=text"),
    )
    grid = choices.grid()
    assert grid["methods"] == [*trials.PAPER_METHODS, "palm-dagger"] and grid["datasets"] == ["a"]
    assert (grid["folds"], grid["lr"], grid["batch_size"], grid["momentum"]) == ([1, 2], 0.1, 8, 0)
    assert (grid["crop"], grid["crop_seed"], grid["autocast"]) == (44100, 3, True)
    assert grid["stochastic"] == ["crops", "bn0"]
    assert grid["options"] == {
        "context_length": 8,
        "names": {"dog": "wolf"},
        "init": "text",
    }


def test_a_saved_config_reads_back_to_the_same(tmp_path):
    flags = [
        *("--quick", "--lr", "1e-5", "--seed", "3", "4", "--note", 'a "quoted" note, ü, 😀'),
        *("--protocol", "released", "--stochastic", "none", "--crop", "5"),
        *("--option", "names={'dog': 'wolf'}", "fixed_lambda=0.5", "--name", "x"),
    ]
    choices = choices_of(*flags)
    path = tmp_path / "saved.toml"
    config.write_config(path, choices)
    again = config.choose({}, config.read_config(path))
    assert again.values == choices.values
    assert set(tomllib.loads(path.read_text())) == set(config.FLAGS)
    config.write_config(tmp_path / "twice.toml", again)
    assert (tmp_path / "twice.toml").read_text() == path.read_text()
    assert config.choose({}, config.read_config(path)).given == choices.given - {"profile"}


@pytest.mark.parametrize(
    "text, message",
    [
        ("epoch = 3", "no setting 'epoch'.*did you mean 'epochs'"),
        ("epochs = -1", "epochs=-1"),
        ("epochs = 'many'", "epochs='many': use a whole number"),
        ("fold = ['x']", "--fold takes numbers, first or all"),
        ("epochs = ", "is not TOML"),
        ("profile = 'papr'", "no profile 'papr'.*did you mean 'paper'"),
    ],
)
def test_config_files_that_cannot_be_run(tmp_path, text, message, capsys):
    (tmp_path / "bad.toml").write_text(text)
    assert main(["run", "--config", str(tmp_path / "bad.toml")]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    with pytest.raises(ValueError, match=message):
        raise ValueError(error)


@pytest.mark.parametrize(
    "text, message",
    [
        ('profile = ["quick"]', "use one value, not a list"),
        ('name = ["a"]', "use one value, not a list"),
        ('checkpoint = ["mini"]', "use one value, not a list"),
        ("note = 3", "note=3: use a text"),
        ('dataset = ["tiny", 3]', "dataset=3: use a text"),
        ('method = [["palm"]]', "use a text"),
        ('dataset = ""', "dataset is empty"),
        ('checkpoint = ""', "checkpoint is empty"),
    ],
)
def test_values_of_another_type_in_a_config_file(tmp_path, text, message, capsys):
    (tmp_path / "c.toml").write_text(text)
    assert main(["run", "--config", str(tmp_path / "c.toml"), "--dry-run"]) == 1
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_save_config_writes_and_stops(tmp_path, capsys):
    path = tmp_path / "plan.toml"
    flags = ["--method", "palm", "--dataset", str(tmp_path), "--lr", "0.5", "--name", "x"]
    assert main(["run", *flags, "--save-config", str(path)]) == 0
    assert f"Written: {path}" in capsys.readouterr().err
    assert tomllib.loads(path.read_text())["lr"] == 0.5


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--epochs", "-1"], "epochs=-1: use a whole number, 0 or more"),
        (["--epochs", "x"], "--epochs: 'x' is not a whole number"),
        (["--crop", "middle"], "crop='middle': use 'random'"),
        (["--shots", "0"], "shots=0: use 1 or more"),
        (["--lr", "0"], "lr=0: use a number over 0"),
        (["--lr", "nan"], "lr=nan: use a number over 0"),
        (["--batch-size", "0"], "batch-size=0: use a whole number, 1 or more"),
        (["--fold", "x"], "--fold takes numbers, first or all, not x"),
        (["--name", ".."], "name='..': use a plain name"),
        (["--profile", "papr"], "did you mean 'paper'?"),
        (["--device", "gpu"], "device='gpu': use auto"),
        (["--option", "init"], "--option: 'init' is not KEY=VALUE"),
        (["--stochastic", "bn0"], "in the frozen one nothing is random"),
        (["--method", "plam"], "no method 'plam'"),
        (["--method", "palm", "--option", "int=text"], "did you mean 'init'?"),
        (["--dataset", "VocalSuonds"], "did you mean 'VocalSounds'?"),
        (["--import", "nowhere.py"], "nowhere.py"),
        (["--config", "nowhere.toml"], "there is no config file nowhere.toml"),
    ],
)
def test_bad_values_are_refused_before_anything_is_done(flags, message, capsys, monkeypatch):
    for name in ("palmkit.datasets.resolve.find_dataset", "palmkit.models.load_model"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("something was opened"))
    assert main(["run", *flags]) == 1
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_a_run_folder_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PALMKIT_RUNS", str(tmp_path / "file"))
    assert main(["run", "--dataset", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "is a file. Choose another --name, or another place with PALMKIT_RUNS" in error


@pytest.mark.parametrize(
    "command, message",
    [
        (["rnu"], "there is no command 'rnu'; there are run, notebooks"),
        (["run", "--epcohs", "3"], "there is no argument --epcohs 3; did you mean --epochs?"),
        (["run", "--epoch", "3"], "did you mean --epochs?"),
        (["table", "x", "--format", "word"], "word"),
    ],
)
def test_what_is_not_understood_is_one_line(command, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(command)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and len(error.splitlines()) == 1


# Messages.


def test_version(capsys):
    import palmkit

    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out == f"palmkit {palmkit.__version__}\n"


@pytest.mark.parametrize("flags, shown", [([], "IW"), (["--verbose"], "DIW"), (["--quiet"], "W")])
def test_verbose_and_quiet(flags, shown, monkeypatch, capsys):
    def speak(*names, **settings):
        logger = logging.getLogger("palmkit.somewhere")
        for level, letter in ((10, "D"), (20, "I"), (30, "W")):
            logger.log(level, letter)
        return []

    # The package `datasets` has a function of the same name, so the module is named.
    monkeypatch.setattr(importlib.import_module("palmkit.datasets.fetch"), "fetch", speak)
    assert main(["fetch", "x", *flags]) == 0
    assert capsys.readouterr().err.replace("\n", "") == shown
    assert not logging.getLogger("palmkit").handlers


def test_an_interrupt_is_130(monkeypatch, capsys):
    def interrupt(*names, **settings):
        raise KeyboardInterrupt

    # The package `datasets` has a function of the same name, so the module is named.
    monkeypatch.setattr(importlib.import_module("palmkit.datasets.fetch"), "fetch", interrupt)
    assert main(["fetch", "x"]) == 130
    assert "the same command goes on from there" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["run", "--epcohs", "3"],
        ["run", "--epochs", "-1"],
        ["run", "--method", "palm", "plam"],
        ["run", "--method", "palm-daggr", "--profile", "paper"],
    ],
)
def test_nothing_heavy_is_loaded_to_answer(command):
    assert loaded_modules(command) == set()


def test_a_mistyped_dataset_loads_no_model(tmp_path):
    """pandas is behind the error's class."""
    assert loaded_modules(["run", "--dataset", "VocalSuonds"]) <= {"pandas"}
    config = tmp_path / "grid.toml"
    config.write_text('dataset = ["VocalSuonds"]\n')
    assert loaded_modules(["run", "--config", str(config)]) <= {"pandas"}


def test_a_mistyped_method_of_a_config_file_loads_nothing(tmp_path):
    config = tmp_path / "grid.toml"
    config.write_text('method = ["plam"]\n')
    assert loaded_modules(["run", "--config", str(config)]) == set()


def loaded_modules(command: list[str]) -> set[str]:
    """What of the heavy modules a refused command loads, in a process of its own."""
    code = (
        "import sys; from palmkit.cli import main\n"
        f"try: assert main({command}) == 1\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'pandas', 'sklearn', 'timm', 'scipy', 'matplotlib'}\n"
        "print(*heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_the_light_lists_of_names_are_the_real_ones():
    from palmkit.experiments.trials import METHOD_NAMES
    from palmkit.methods import METHODS
    from palmkit_synthetic import TASK_NAMES
    from palmkit_synthetic.tasks import TASKS

    assert tuple(METHODS) == METHOD_NAMES
    assert tuple(TASKS) == TASK_NAMES


def test_a_mistyped_method_is_refused_in_the_words_of_get_method(capsys):
    from palmkit.methods import get_method

    with pytest.raises(ValueError) as stop:
        get_method("plam")
    assert main(["run", "--method", "plam"]) == 1
    assert capsys.readouterr().err == f"palmkit: {stop.value}\n"


def test_import_is_the_name_of_own(monkeypatch, capsys):
    monkeypatch.setattr(
        "palmkit.datasets.import_folder.import_dataset", lambda path, *_: f"made of {path}"
    )
    for name in ("import", "own"):
        assert main([name, "somewhere"]) == 0
        assert capsys.readouterr().out == "made of somewhere\n"


@pytest.mark.slow
def test_lab_hands_its_arguments_on(tmp_path, capfd):
    assert main(["lab", str(tmp_path), "--version"]) == 0
    assert capfd.readouterr().out.strip()[0].isdigit()
    assert main(["lab", str(tmp_path / "nowhere")]) == 1


def test_a_name_that_no_folder_can_have():
    with pytest.raises(OSError, match="there can be no folder .*: a name has 255 bytes at"):
        config.check_run_folder("a" * 300)


def test_how_datasets_are_read(tmp_path):
    """Flags of columns are arguments of `find_dataset`, and stand in a config file."""
    choices = config.choose(
        {"path-column": "file", "class-column": "label", "underscores": "space"}
    )
    reading = {"path_column": "file", "class_column": "label", "underscores": "space"}
    assert choices.reading() == reading and config.choose({}).reading() == {}
    config.write_config(tmp_path / "run.toml", choices)
    assert config.choose({}, config.read_config(tmp_path / "run.toml")).reading() == reading
    with pytest.raises(ValueError, match="underscores='no': use keep or space"):
        config.choose({"underscores": "no"})


@pytest.mark.parametrize("name", ["..", ".", "", " ", "a/../../b", "../b", "a\nb", "a\0b", "a/.."])
def test_no_name_leaves_the_folder_of_runs(name, tmp_path, monkeypatch):
    """On the command line and from Python."""
    monkeypatch.setenv("PALMKIT_RUNS", str(tmp_path / "runs"))
    with pytest.raises(ValueError, match="name="):
        storage.run_folder(name)
    with pytest.raises(ValueError, match="name="):
        config.choose({"name": name})


def test_a_path_that_is_meant_is_a_run_s_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PALMKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert storage.run_folder("./../x") == Path("../x")
    assert storage.run_folder(f"{tmp_path}/a/../b") == tmp_path / "a" / ".." / "b"
    assert storage.run_folder("~/x") == tmp_path / "x"
    assert storage.run_folder("...") == tmp_path / "runs" / "..."


@pytest.mark.parametrize(
    "setting",
    [
        {"epochs": 10**20},
        {"epochs": 10**7},
        {"batch_size": 10**20},
        {"shots": 10**20},
        {"crop": 10**20},
        {"crop_seed": -(10**20)},
        {"seed": 10**5000},
        {"options": {"corruption": ["noise", 1e9]}},
        {"options": {"corruption": ["clipping", -3]}},
        {"options": {"corruption": ["clipping", 1.5]}},
        {"options": {"corruption": ["band", -1]}},
        {"options": {"pca_dim": True}},
    ],
)
def test_numbers_that_are_a_slip(setting):
    (name,) = setting.get("options", setting)
    with pytest.raises(ValueError, match=name):
        trials.Trial("palm", "x", **setting)


def test_a_config_is_not_written_into_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere"):
        config.write_config(tmp_path / "nowhere" / "run.toml", config.choose({}))
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_named_in_two_ways_is_one_dataset(tmp_path, monkeypatch):
    (tmp_path / "rec").mkdir()
    monkeypatch.chdir(tmp_path)
    names = ["rec", "./rec/", str(tmp_path / "rec"), "VocalSounds", "VocalSounds"]
    assert config.expand_datasets(names) == ["rec", "VocalSounds"]
