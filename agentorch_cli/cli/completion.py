"""`agentorch completion`: the scripts with which shells complete commands, options, ids and names."""

from __future__ import annotations

import typer

from agentorch_cli.cli.help import noun, verb
from agentorch_cli.cli.session import Session, write

app = noun("""$ agentorch completion bash > agentorch.bash

Print the script that completes commands, options, ids and names in your shell.

Ids come from a server that is chosen, or from the embedded PostgreSQL if it runs already: it is
never started for this. Where nothing answers within a moment, commands and options are completed.""")

BASH = r"""# agentorch: completion for bash. In ~/.bashrc: eval "$(agentorch completion bash)"
_agentorch() {
    local IFS=$'\n' kind line
    COMPREPLY=()
    {
        read -r kind
        while read -r line; do COMPREPLY+=("$(printf '%q' "$line")"); done
    } < <(_AGENTORCH_COMPLETE=bash _AGENTORCH_LINE="${COMP_LINE:0:COMP_POINT}" \
        _AGENTORCH_BREAKS="$COMP_WORDBREAKS" "${COMP_WORDS[0]/#\~/$HOME}" 2>/dev/null)
    [[ $kind == files ]] && compopt -o default
    [[ $kind == open ]] && compopt -o nospace
    return 0
}
complete -F _agentorch agentorch
"""

ZSH = r"""#compdef agentorch
# agentorch: completion for zsh. In ~/.zshrc, after compinit: eval "$(agentorch completion zsh)"
_agentorch() {
    local -a lines values
    lines=("${(@f)$(_AGENTORCH_COMPLETE=zsh ${(Q)words[1]} "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ $lines[1] == files ]]; then
        _files
        return
    fi
    local line value about
    for line in "${(@)lines[2,-1]}"; do
        value="${line%%$'\t'*}"
        about="${line#*$'\t'}"
        [[ -n $value ]] && values+=("${value//:/\\:}:$about")
    done
    if [[ $lines[1] == open ]]; then
        _describe -t agentorch agentorch values -S ''
    else
        _describe -t agentorch agentorch values
    fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _agentorch "$@"
else
    compdef _agentorch agentorch
fi
"""

FISH = r"""# agentorch: completion for fish. Write it to ~/.config/fish/completions/agentorch.fish
function __agentorch
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -lx _AGENTORCH_COMPLETE fish
    set -l lines ($words[1] $words[2..-1] "$current" 2>/dev/null)
    if test "$lines[1]" = files
        __fish_complete_path "$current"
    else
        printf '%s\n' $lines[2..-1]
    end
end
complete -c agentorch -f -a '(__agentorch)'
"""


@verb(app, "bash")
def bash(ctx: typer.Context) -> None:
    """Print the script for bash.

    $ agentorch completion bash > agentorch.bash

    For every new shell, a line in ~/.bashrc: eval "$(agentorch completion bash)"
    """
    _print(ctx, BASH)


@verb(app, "zsh")
def zsh(ctx: typer.Context) -> None:
    """Print the script for zsh; as a file named _agentorch it may lie in a folder of $fpath.

    $ agentorch completion zsh > _agentorch
    """
    _print(ctx, ZSH)


@verb(app, "fish")
def fish(ctx: typer.Context) -> None:
    """Print the script for fish.

    $ agentorch completion fish > agentorch.fish
    """
    _print(ctx, FISH)


def _print(ctx: typer.Context, script: str) -> None:
    session = Session.of(ctx)
    if session.format == "table":
        write(script.rstrip("\n"))
    else:
        session.show({"script": script}, lambda _: None)
