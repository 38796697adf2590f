"""Tables and lists as spreadsheets and editors of many countries save them."""

from __future__ import annotations

import pytest

from vcell.errors import UserError
from vcell.screen.names import read_genes
from vcell.screen.tables import read as read_features
from vcell.text_files import read_rows


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfTP53\nKLF1\n",
        b"TP53\r\nKLF1\r\n",
        b"TP53\rKLF1\r",
        b"\n TP53 \n\nKLF1",
        b'"TP53"\n"KLF1"\n',
        b'note,gene_symbol\n"a, b",TP53\n;,KLF1\n',
    ],
)
def test_names_are_read_from_any_list_of_them(tmp_path, content):
    (tmp_path / "genes.csv").write_bytes(content)
    assert read_genes(tmp_path / "genes.csv") == ["TP53", "KLF1"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("gene;note\nTP53;a\n", "semicolons"),
        ("TP53;1,5\nKLF1;2,5\n", None),  # commas make it a table of two columns
        ("TP53;1\nKLF1;2\n", "semicolons"),
        ('"target_gene";"n_cells"\n"TP53";"100"\n', "semicolons"),
        ("target_gene\tn_cells\nTP53\t100\n", "tabs"),
        ("TP53;KLF1\nMED12;SRC\n", None),  # names of pairs
        ("TP53;KLF1\nMED12\n", None),
    ],
)
def test_other_separators_are_named(tmp_path, text, what):
    path = tmp_path / "genes.csv"
    path.write_text(text)
    if what is None:
        assert len(read_rows(path)) == 2
    else:
        with pytest.raises(UserError, match=f"columns are separated by {what}, not commas"):
            read_rows(path)


def test_features_without_numbers_are_refused(tmp_path):
    (tmp_path / "names.csv").write_text("gene\nTP53\n")
    with pytest.raises(UserError, match="has no column of numbers beside the genes"):
        read_features(tmp_path / "names.csv")
