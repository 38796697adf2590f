"""``vcell completion SHELL``: print the script that completes commands, options and choices."""

from __future__ import annotations

import click

from vcell import console
from vcell.errors import UserError

_WHERE = {
    "bash": "vcell completion bash > ~/.local/share/bash-completion/completions/vcell",
    "zsh": 'vcell completion zsh > "${fpath[1]}/_vcell"',
    "fish": "vcell completion fish > ~/.config/fish/completions/vcell.fish",
}


@click.command(epilog="\b\nWhere to put it:\n" + "\n".join(f"  {line}" for line in _WHERE.values()))
@click.argument("shell", type=click.Choice(list(_WHERE)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes vcell commands in your shell."""
    from click.shell_completion import get_completion_class

    maker = get_completion_class(shell)
    if maker is None:
        raise UserError(f"this version of click cannot complete for {shell}")
    script = maker(ctx.find_root().command, {}, "vcell", "_VCELL_COMPLETE")
    # not .source(), which would start the shell to check its version
    text = script.source_template % script.source_vars()
    if console.settings.json:
        console.result({"shell": shell, "script": text}, "")
    else:
        click.echo(text)  # as it is: nothing fitted to a terminal
