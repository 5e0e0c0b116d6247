"""The completion scripts. They hold the words and complete them in the shell; files are configs and folders.

A key is completed section by section: `mo` to `model.`, `model.d_m` to `model.d_model=`; after `=` come its values.
Behind `grid.` is any key. A word with a tilde, quotes or backslashes is a path, which bash completes as everywhere.
"""

from collections.abc import Callable, Mapping

from lcprobe.cli.completion.words import WITHOUT_FILES, Words

PROGRAMS = {"lcprobe": "", "lcprobe-train": "train", "lcprobe-evaluate": "evaluate", "lcprobe-data": "data"}
"""Console scripts, with the command that each is."""

BASH = r"""# completion of lcprobe for bash:  source <(lcprobe completion bash)
_lcprobe_words() {
    case $1 in
@CASES@
    esac
}
_lcprobe_values() {
    case $1 in
@VALUES@
    esac
}
_lcprobe() {
    local line=${COMP_LINE:0:COMP_POINT} current previous command word path axis= sub
    local -a words
    if [[ ${COMP_WORDS[COMP_CWORD]} == *[\\\'\"\$\~]* ]]; then  # a path that the shell itself must read
        compopt -o bashdefault -o default
        return 0
    fi
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    current=${words[-1]} previous=${words[-2]} COMPREPLY=()
    command=$(_lcprobe_words "program ${words[0]##*/}")
    if [[ -z $command ]]; then
        (( ${#words[@]} > 2 )) && command=${words[1]}
    else
        words=(lcprobe "${words[@]}")
    fi
    sub=$(_lcprobe_words "sub $command")
    [[ $current == grid.* ]] && axis=grid.
    if [[ -z $command ]]; then
        COMPREPLY=($(compgen -W "$(_lcprobe_words commands) --help --version" -- "$current"))
    elif [[ $previous == --help || $previous == -h ]]; then
        COMPREPLY=($(compgen -W "$(_lcprobe_words names)" -- "$current"))
    elif [[ $current == -* ]]; then
        COMPREPLY=($(compgen -W "$(_lcprobe_words "options $command")" -- "$current"))
    elif [[ $current == *=* ]]; then
        COMPREPLY=($(compgen -W "$(_lcprobe_values "${current%%=*}")" -- "${current#*=}"))
        [[ $COMP_WORDBREAKS == *=* ]] || COMPREPLY=("${COMPREPLY[@]/#/${current%%=*}=}")
    elif [[ -n $sub ]] && (( ${#words[@]} == 3 )); then
        COMPREPLY=($(compgen -W "$sub" -- "$current"))
    elif [[ -z $(_lcprobe_words "without files $command") ]]; then
        for word in $(_lcprobe_words "keys $command"); do
            [[ $word == grid.* ]] || word=$axis$word
            [[ $word == "$current"* ]] || continue
            word=$current$(_lcprobe_step "${word#"$current"}")
            [[ " ${COMPREPLY[*]} " == *" $word "* ]] || COMPREPLY+=("$word")
        done
        while IFS= read -r path; do COMPREPLY+=("$(printf %q "$path")/"); done < <(compgen -d -- "$current")
        while IFS= read -r path; do
            [[ $path == *.yaml || $path == *.yml ]] && COMPREPLY+=("$(printf %q "$path")")
        done < <(compgen -f -- "$current")
    fi
    [[ ${#COMPREPLY[@]} == 1 && $COMPREPLY == *[=./] ]] && compopt -o nospace
    return 0
}
_lcprobe_step() {
    [[ $1 == *.* ]] && echo "${1%%.*}." || echo "$1"
}
complete -F _lcprobe @PROGRAMS@
"""

ZSH = r"""#compdef @PROGRAMS@
# completion of lcprobe for zsh, after compinit:  source <(lcprobe completion zsh)
_lcprobe_words() {
    case $1 in
@CASES@
    esac
}
_lcprobe_values() {
    case $1 in
@VALUES@
    esac
}
_lcprobe() {
    local current=${words[CURRENT]} previous=${words[CURRENT-1]} command key rest axis= sub
    local -a found
    integer first=3
    command=$(_lcprobe_words "program ${words[1]:t}")
    if [[ -n $command ]]; then
        first=2
    elif (( CURRENT > 2 )); then
        command=${words[2]}
    fi
    sub=$(_lcprobe_words "sub $command")
    [[ $current == grid.* ]] && axis=grid.
    if [[ -z $command ]]; then
        compadd -- $(_lcprobe_words commands) --help --version
    elif [[ $previous == --help || $previous == -h ]]; then
        compadd -- $(_lcprobe_words names)
    elif [[ $current == -* ]]; then
        compadd -- $(_lcprobe_words "options $command")
    elif [[ $current == *=* ]]; then
        compset -P '*='
        compadd -- $(_lcprobe_values "${current%%=*}")
    elif [[ -n $sub ]] && (( CURRENT == first )); then
        compadd -- ${(f)sub}
    elif [[ -z $(_lcprobe_words "without files $command") ]]; then
        for key in $(_lcprobe_words "keys $command"); do
            [[ $key == grid.* ]] || key=$axis$key
            [[ $key == $current* ]] || continue
            rest=${key#$current}
            [[ $rest == *.* ]] && rest=${rest%%.*}.
            found+=($current$rest)
        done
        compadd -S '' -- ${(u)found}
        _files -g '*.(yaml|yml)(-.)'
    fi
}
(( $+functions[compdef] )) && compdef _lcprobe @PROGRAMS@
"""

FISH = r"""# completion of lcprobe for fish:  lcprobe completion fish | source
function __lcprobe_words
    switch $argv[1]
@CASES@
    end
end
function __lcprobe_values
    switch $argv[1]
@VALUES@
    end
end
function __lcprobe
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l command (__lcprobe_words "program "(basename -- $words[1]))
    set -l first 2
    if test -n "$command"
        set first 1
    else if test (count $words) -gt 1
        set command $words[2]
    end
    set -l sub (__lcprobe_words "sub $command")
    set -l axis
    string match -q -- 'grid.*' $current; and set axis grid.
    if test -z "$command"
        printf '%s\n' (__lcprobe_words commands) --help --version
    else if contains -- $words[-1] --help -h
        __lcprobe_words names
    else if string match -q -- '-*' $current
        __lcprobe_words "options $command"
    else if string match -q -- '*=*' $current
        set -l key (string split -m 1 = -- $current)[1]
        for value in (__lcprobe_values "$key")
            echo "$key=$value"
        end
    else if test -n "$sub" -a (count $words) -eq $first
        printf '%s\n' $sub
    else if test (count (__lcprobe_words "without files $command")) -eq 0
        for key in (__lcprobe_words "keys $command")
            string match -q -- 'grid.*' $key; or set key "$axis$key"
            if string match -q -- "$current*" $key
                set -l rest (string sub -s (math (string length -- "$current") + 1) -- $key)
                string match -q -- '*.*' $rest; and set rest (string split -m 1 . -- $rest)[1].
                echo "$current$rest"
            end
        end | sort -u
        __fish_complete_directories "$current" ''
        set -l typed (string replace -r -- '^~/' "$HOME/" (string trim -l -c "\"'" -- "$current"))
        for path in $typed*
            string match -qr -- '[.]ya?ml$' $path; or continue
            string match -q -- '~/*' "$current"; and set path (string replace -- "$HOME/" '~/' $path)
            echo $path
        end
    end
end
@PROGRAMS@
"""


def bash(words: Words) -> str:
    """For bash 4.4 and later."""
    return _in_posix(BASH, words, lambda texts: f"echo {' '.join(texts)}")


def zsh(words: Words) -> str:
    """For zsh 5 and later."""
    return _in_posix(ZSH, words, lambda texts: f"print -rl -- {' '.join(texts)}")


def fish(words: Words) -> str:
    """For fish 3 and later."""
    head, echo = " " * 8, r"printf '%s\n'"

    def cases(tables: Mapping[str, list[str]]) -> str:
        return "\n".join(
            f"{head}case '{name}'\n{head}    {echo} {' '.join(own)}" for name, own in tables.items() if own
        )

    programs = "\n".join(f"complete -c {program} -f -a '(__lcprobe)'" for program in PROGRAMS)
    return _filled(FISH, cases(_tables(words)), cases(_values(words)), programs)


SCRIPTS: dict[str, Callable[[Words], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
"""By shell."""


def _in_posix(script: str, words: Words, echo: Callable[[list[str]], str]) -> str:
    def cases(tables: Mapping[str, list[str]]) -> str:
        return "\n".join(f"        '{name}') {echo(own)} ;;" for name, own in tables.items() if own)

    return _filled(script, cases(_tables(words)), cases(_values(words)), " ".join(PROGRAMS))


def _filled(script: str, cases: str, values: str, programs: str) -> str:
    return script.replace("@CASES@", cases).replace("@VALUES@", values).replace("@PROGRAMS@", programs)


def _tables(words: Words) -> dict[str, list[str]]:
    tables = {f"program {program}": [command] for program, command in PROGRAMS.items() if command}
    tables |= {"commands": words.commands, "names": words.names}
    for command in words.commands:
        tables[f"options {command}"] = words.options[command]
        tables[f"sub {command}"] = words.sub.get(command, [])
        tables[f"keys {command}"] = [f"{key}=" for key in words.keys_of(command)]
        tables[f"without files {command}"] = ["yes"] if command in WITHOUT_FILES else []
    return tables


def _values(words: Words) -> dict[str, list[str]]:
    """Values by key."""
    return {key: values for own in words.own_keys.values() for key, values in own.items()} | words.keys
