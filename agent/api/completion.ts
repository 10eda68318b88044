// Completion scripts for bash, zsh and fish, from the table of verbs.

import { commonFlags } from './arguments.ts'
import { shownVerbs } from './help.ts'
import type { Field, Verb } from './verbs.ts'

/** Prints the serials of the drives of this host, one a line. */
const serials = `garrison drives --json 2>/dev/null | grep -o '"serial":"[^"]*"' | cut -d '"' -f 4`

const single = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`

/** The verbs under a verb: `show` of `drives`. */
const under = (name: string): readonly (readonly [string, Verb])[] =>
  shownVerbs().flatMap(([other, verb]) =>
    other.startsWith(`${name} `) ? [[other.slice(name.length + 1), verb] as const] : [],
  )

const flagsOf = (name: string, verb: Verb): readonly (readonly [string, Field])[] =>
  Object.entries({
    ...verb.flags,
    ...Object.fromEntries(under(name).flatMap(([, { flags }]) => Object.entries(flags))),
    ...commonFlags,
  })

const topVerbs = () => shownVerbs().filter(([name]) => !name.includes(' '))

/** What may stand at a place: words, drives, files, or nothing that can be told. */
type Offer = readonly string[] | 'drive' | 'path' | null

const offersOf = ({ operands }: Verb): readonly Offer[] =>
  Object.values(operands).map((field) =>
    field.kind === 'choice'
      ? field.choices
      : field.kind === 'drive' || field.kind === 'path'
        ? field.kind
        : null,
  )

/** What may stand after a verb, place by place; the words of verbs under it come first. */
function operandsOf(name: string, verb: Verb): readonly Offer[] {
  const verbs = under(name)
  if (verbs.length === 0) return offersOf(verb)
  const [longest = []] = verbs.map(([, one]) => offersOf(one)).sort((a, b) => b.length - a.length)
  return [verbs.map(([word]) => word), ...longest]
}

function bash(): string {
  // bash is told the word before, not its verb: of flags with one name the first verb's, which has the most choices, stands.
  const flags = new Map(
    shownVerbs()
      .flatMap(([name, verb]) => flagsOf(name, verb))
      .reverse(),
  )
  const flagCases = [...flags].flatMap(([name, field]) => {
    if (field.kind === 'switch') return []
    const reply =
      field.kind === 'choice'
        ? `-W ${single(field.choices.join(' '))}`
        : field.kind === 'path'
          ? '-f'
          : "-W ''"
    return `    --${name}) COMPREPLY=($(compgen ${reply} -- "$cur")); return ;;`
  })
  const verbCases = topVerbs().map(([name, verb]) => {
    const flags = flagsOf(name, verb).map(([flag]) => `--${flag}`)
    const places = operandsOf(name, verb).map((words, at) => {
      const reply =
        words === 'drive'
          ? `compgen -W "$(${serials})"`
          : words === 'path'
            ? 'compgen -f'
            : `compgen -W ${single((words ?? []).join(' '))}`
      return `      ${at + 1}) COMPREPLY=($(${reply} -- "$cur")) ;;`
    })
    return [
      `    ${name})`,
      `      if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W ${single(flags.join(' '))} -- "$cur")); return; fi`,
      ...(places.length === 0
        ? []
        : ['      case $place in', ...places.map((line) => `  ${line}`), '      esac']),
      '      ;;',
    ].join('\n')
  })
  return `# bash completion of garrison; made from its table of verbs.
_garrison() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} verb= place=0 at
  COMPREPLY=()
  case $prev in
${flagCases.join('\n')}
  esac
  for ((at = 1; at < COMP_CWORD; at++)); do
    case \${COMP_WORDS[at]} in
    -*) ;;
    *) if [[ -z $verb ]]; then verb=\${COMP_WORDS[at]}; else ((place++)); fi ;;
    esac
  done
  ((place++))
  case $verb in
    '') COMPREPLY=($(compgen -W ${single([...topVerbs().map(([name]) => name), '--help', '--version'].join(' '))} -- "$cur")) ;;
${verbCases.join('\n')}
  esac
}
complete -F _garrison garrison
`
}

const zshText = (text: string): string =>
  text.replace(/[\\:[\]']/g, (special) => (special === "'" ? '’' : `\\${special}`))

function zsh(): string {
  const action = (words: Offer): string => {
    if (words === 'drive') return '_garrison_drives'
    if (words === 'path') return '_files'
    return words === null ? '' : `(${words.join(' ')})`
  }
  const flagSpec = ([name, field]: readonly [string, Field]): string => {
    const value =
      field.kind === 'switch'
        ? ''
        : `:${field.placeholder}:${field.kind === 'choice' ? `(${field.choices.join(' ')})` : field.kind === 'path' ? '_files' : ''}`
    return `'--${name}[${zshText(field.brief)}]${value}'`
  }
  const cases = topVerbs().map(([name, verb]) => {
    const specs = [
      ...flagsOf(name, verb).map(flagSpec),
      ...operandsOf(name, verb).map((words, at) => `'${at + 1}::operand:${action(words)}'`),
    ]
    return `    ${name}) _arguments \\\n      ${specs.join(' \\\n      ')} ;;`
  })
  return `#compdef garrison
# zsh completion of garrison; made from its table of verbs.
_garrison_drives() {
  local -a serials
  serials=(\${(f)"$(${serials})"})
  compadd -a serials
}
_garrison() {
  local -a verbs
  verbs=(
${topVerbs()
  .map(([name, { brief }]) => `    '${name}:${zshText(brief)}'`)
  .join('\n')}
  )
  if ((CURRENT == 2)); then
    _describe verb verbs
    return
  fi
  local verb=$words[2]
  shift words
  ((CURRENT--))
  case $verb in
${cases.join('\n')}
  esac
}
_garrison "$@"
`
}

const fishText = (text: string): string => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`

function fish(): string {
  const lines = topVerbs().flatMap(([name, verb]) => {
    const when = `-n '__fish_seen_subcommand_from ${name}'`
    const operands = operandsOf(name, verb).flatMap((words, at) => {
      const here = `-n '__fish_seen_subcommand_from ${name}; and __garrison_operand ${at + 1}'`
      if (words === null) return []
      if (words === 'path') return `complete -c garrison ${here} -F`
      const list = words === 'drive' ? '(__garrison_drives)' : words.join(' ')
      return `complete -c garrison ${here} -a ${words === 'drive' ? `'${list}'` : fishText(list)}`
    })
    const flags = flagsOf(name, verb).map(([flag, field]) => {
      const value =
        field.kind === 'switch'
          ? ''
          : field.kind === 'choice'
            ? ` -x -a ${fishText(field.choices.join(' '))}`
            : field.kind === 'path'
              ? ' -r -F'
              : ' -x'
      return `complete -c garrison ${when} -l ${flag}${value} -d ${fishText(field.brief)}`
    })
    return [
      `complete -c garrison -n __fish_use_subcommand -a ${name} -d ${fishText(verb.brief)}`,
      ...operands,
      ...flags,
    ]
  })
  return `# fish completion of garrison; made from its table of verbs.
function __garrison_drives
  ${serials}
end
function __garrison_operand
  set -l words (string match -v -- '-*' (commandline -opc))
  test (math (count $words) - 1) -eq $argv[1]
end
complete -c garrison -f
${lines.join('\n')}
`
}

/** The completion script of a shell. Serials of drives are asked of \`garrison drives\` while completing. */
export const completionScript = (shell: 'bash' | 'zsh' | 'fish'): string => ({ bash, zsh, fish })[shell]()
