"""The project file as the command line uses it, with a built-in plugin's settings."""

from __future__ import annotations


def test_check_reports_file_and_environment_at_once(vcell, tmp_path):
    (tmp_path / "vcell.toml").write_text("[select-genes]\nn-gens = 3\n\n[dta]\n")
    ran = vcell("config", "check", env={"VCELL_SELECT_GENES_N_GENS": "3"})
    assert ran.code == 2
    assert "vcell.toml:2: [select-genes] n-gens is not an option (did you mean n-genes?)" in ran.err
    assert "vcell.toml:4: [dta] is not a table of vcell (did you mean data?)" in ran.err
    assert (
        "VCELL_SELECT_GENES_N_GENS: sets nothing (did you mean VCELL_SELECT_GENES_N_GENES?)"
        in ran.err
    )


def test_variables_that_vcell_itself_reads_are_no_mistakes(vcell, tmp_path):
    assert vcell("config", "check", env={"VCELL_CACHE": str(tmp_path)}).code == 0


def test_command_line_over_environment_over_file_over_default(vcell, tmp_path):
    def shown(env=None):
        ran = vcell("config", "show", "select-genes", "--json", env=env)
        return ran.json["select-genes"]["n-genes"]

    assert shown()["from"] == "default"
    (tmp_path / "vcell.toml").write_text("[select-genes]\nn-genes = 11\n")
    assert shown() == {"value": 11, "from": "vcell.toml:2"}
    variable = {"VCELL_SELECT_GENES_N_GENES": "12"}
    assert shown(variable) == {"value": 12, "from": "VCELL_SELECT_GENES_N_GENES"}


def test_a_mistake_in_the_file_stops_a_command_but_not_its_help(vcell, tmp_path):
    (tmp_path / "vcell.toml").write_text("[select-genes]\nn-genes = 0\n")
    ran = vcell("select-genes", "cells.h5ad")
    assert ran.code == 2
    assert ran.err == "error: vcell.toml:2: [select-genes] n-genes must be at least 1, not 0\n"
    assert vcell("select-genes", "--help").code == 0
    assert vcell("--no-config", "select-genes", "missing.h5ad").err.count("vcell.toml") == 0


def test_what_is_called_vcell_toml_and_is_no_file_is_refused(vcell, tmp_path):
    place = tmp_path / "folder" / "deep"
    (tmp_path / "folder" / "vcell.toml").mkdir(parents=True)
    place.mkdir()
    told = "error: ../vcell.toml is a folder, not a project file\n"
    for words in (["config", "show"], ["config", "check"], ["inspect", "cells.h5ad"]):
        ran = vcell(*words, cwd=place)
        assert ran.code == 2
        assert ran.err.startswith(told)
        assert ran.err.count("\n") == 2  # and a hint
    assert vcell("--no-config", "config", "show", cwd=place).code == 0
    (place / "vcell.toml").symlink_to("nowhere")
    ran = vcell("config", "show", cwd=place)
    assert ran.code == 2
    assert "vcell.toml: cannot be read: No such file" in ran.err


def test_init_makes_a_project_that_checks(vcell, tmp_path):
    assert vcell("init", "screen").code == 0
    assert vcell("config", "check", cwd=tmp_path / "screen").code == 0
    again = vcell("init", "screen")
    assert again.code == 2
    assert "exists already" in again.err
    assert vcell("init", "other", "--cells", "absent.h5ad").code == 2
    assert not (tmp_path / "other").exists()


def test_the_repositorys_own_project_file_has_no_mistakes(vcell, repository):
    assert (repository / "vcell.toml").is_file()
    assert vcell("config", "check", cwd=repository).code == 0


def test_a_project_file_of_vcell_is_replaced_by_force_only(vcell, tmp_path):
    path = tmp_path / "vcell.toml"
    assert vcell("config", "init", path).code == 0
    assert "--force" in vcell("config", "init", path).err
    assert vcell("config", "init", path, "--force").code == 0
    path.write_text("# mine\n")
    assert vcell("config", "init", path, "--force").code == 2
    assert path.read_text() == "# mine\n"
