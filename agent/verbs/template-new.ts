// The verb `template new`: a small valid template to begin with.

import { basename, resolve } from 'node:path'
import { HostError } from '../../provisioning/problem.ts'
import { templateName } from '../../provisioning/vms/template.ts'
import { notKnown } from '../../provisioning/written.ts'
import type { Parts } from '../api/context.ts'
import { paragraph } from '../api/terminal.ts'
import { type Args, EXIT, type Exit } from '../api/verbs.ts'
import { createFile } from '../host/files.ts'

/** The answer of `template new`. */
export interface NewTemplate {
  readonly file: string
  readonly name: string
  readonly extends: string | null
}

const refuse = (message: string): HostError =>
  new HostError('request.invalid', message, { details: { verb: 'template new' } })

/** What stands in a new template. Names are words of lower-case letters, digits and -, which YAML reads as text. */
const skeleton = (name: string, base: string | null): string =>
  base === null
    ? `name: ${name}
version: 0.1.0
description: What it is for, in a sentence
parameters:
  # Each is written in vm below as \${NAME}, and always as a whole value.
  memory:
    type: size
    description: Memory
    default: 2GiB
    minimum: 512MiB
    maximum: 64GiB
vm:
  # As in host.yaml below vms.machines.NAME; what a VM says itself stands before this.
  cpus: 2
  memory: \${memory}
  disks:
    root:
      size: 20GiB
  nics:
    lan: {}
`
    : `name: ${name}
version: 0.1.0
description: What it is for, in a sentence
extends: ${base}
parameters: {}
vm:
  # What differs from ${base}, as in host.yaml below vms.machines.NAME.
  tags:
    made-from: ${name}
`

/** Makes FILE. Throws `file.exists` when it is there, `request.invalid` for a name that no template can have. */
export async function run(
  { file, extends: base, templates: folder }: Args<'template new'>,
  here: { parts(): Promise<Parts> },
): Promise<NewTemplate> {
  const name = basename(file, '.yaml')
  if (!file.endsWith('.yaml') || !templateName.safeParse(name).success)
    throw refuse(
      `${basename(file)} names no template: it must be NAME.yaml, NAME of lower-case letters, digits and -`,
    )
  if (base !== undefined) {
    const parts = await here.parts()
    const { templates } = await parts.templates(folder)
    const found = templates.find((one) => one.name === base)
    if (found === undefined)
      throw new HostError(
        'template.unknown',
        notKnown(
          'template',
          base,
          templates.map((one) => one.name),
        ),
      )
    if (found.extends !== undefined) throw refuse(`${base} itself extends ${found.extends}: name that one`)
  }
  if (!(await createFile(resolve(file), skeleton(name, base ?? null), 0o644)))
    throw new HostError('file.exists', `${file} is there already`, { details: { path: resolve(file) } })
  return { file, name, extends: base ?? null }
}

/** The answer in words. */
export const render = ({ file, name }: NewTemplate): string =>
  paragraph(
    '',
    `${name} begins in ${file}. Change it, try it with garrison template check ${file}, then copy it to /etc/garrison/templates.`,
    0,
  )

/** Always 0. */
export const exitOf = (): Exit => EXIT.done
