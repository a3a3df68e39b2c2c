"""``arriero completion``: what a shell needs to complete commands and options."""

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash:  eval "$(arriero completion bash)"        in ~/.bashrc
    zsh:   eval "$(arriero completion zsh)"         in ~/.zshrc
    fish:  arriero completion fish > ~/.config/fish/completions/arriero.fish
    """  # noqa: D301 - click's mark for a paragraph that is not wrapped
    completion = get_completion_class(shell)
    if completion is None:
        raise click.UsageError(f"There is no completion for {shell}.")
    root = ctx.find_root()
    click.echo(completion(root.command, {}, "arriero", "_ARRIERO_COMPLETE").source())
