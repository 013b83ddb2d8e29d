"""Completion scripts for ``kubectl-toe`` called by its own name; under kubectl, kubectl's own completion asks us."""

from typing import Literal

Shell = Literal["bash", "zsh", "fish"]

_BASH = r"""# bash completion for kubectl-toe: source <(kubectl-toe completion bash)
_kubectl_toe() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            :0) compopt -o default ;;
            :*) ;;
            *) COMPREPLY+=("${line%%$'\t'*}") ;;
        esac
    done < <(kubectl_complete-toe "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _kubectl_toe kubectl-toe
"""

_ZSH = r"""#compdef kubectl-toe
# zsh completion for kubectl-toe: source <(kubectl-toe completion zsh)
_kubectl_toe() {
    local line name
    local -a candidates
    while IFS= read -r line; do
        case $line in
            :0) _files ;;
            :*) ;;
            *)
                name=${${line%%$'\t'*}//:/\\:}
                [[ $line == *$'\t'* ]] && name="$name:${line#*$'\t'}"
                candidates+=("$name")
                ;;
        esac
    done < <(kubectl_complete-toe "${(@)words[2,CURRENT]}" 2>/dev/null)
    (( ${#candidates} )) && _describe 'kubectl toe' candidates
}
compdef _kubectl_toe kubectl-toe
"""

_FISH = r"""# fish completion for kubectl-toe: kubectl-toe completion fish | source
function __kubectl_toe
    set -l words (commandline -opc)
    kubectl_complete-toe $words[2..-1] (commandline -ct | string collect --allow-empty) 2>/dev/null \
        | string match --invert --regex '^:[0-9]+$'
end
complete --command kubectl-toe --no-files --arguments '(__kubectl_toe)'
complete --command kubectl-toe --short-option d --long-option directory --require-parameter --force-files
complete --command kubectl-toe --short-option O --long-option output-file --require-parameter --force-files
complete --command kubectl-toe --long-option kubeconfig --require-parameter --force-files
"""


def script(shell: Shell) -> str:
    """The script for one shell."""
    return {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}[shell]
