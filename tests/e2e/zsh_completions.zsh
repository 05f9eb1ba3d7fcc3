# Prints what zsh offers for the last, incomplete word of a line, one match a line.
# Usage: zsh_completions.zsh DIRECTORY-OF-COMPLETIONS LINE
zmodload zsh/zpty || exit 2
capture() {
  PROMPT=
  fpath=($1 $fpath)
  autoload -Uz compinit
  compinit -u -D
  # Prints the matches in place of offering them.
  compadd() {
    if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then
      builtin compadd "$@"
      return $?
    fi
    typeset -a matches
    builtin compadd -A matches "$@"
    (( $#matches )) && print -rl -- "match "${^matches}
    builtin compadd "$@"
  }
  finish() { print "the end"; exit }
  zle -C complete-all complete-word _generic
  zle -N finish
  bindkey '^I' complete-all
  bindkey '^X' finish
  stty -echo
  print ready
}
zpty shell zsh -f -i
zpty -w shell "$(functions capture); capture ${(q)1}"
zpty -m -r shell line '*ready*' 2>/dev/null || exit 3
zpty -w -n shell "$2"$'\t\x18'
while zpty -r shell line; do
  line=${line//$'\r'/}; line=${line%$'\n'}
  [[ $line == *'the end'* ]] && break
  [[ $line == *'match '* ]] && print -r -- ${line#*match }
done
zpty -d shell
