// Templates of VMs: what a file of one may say, and what a declaration says to take one.

import { z } from 'zod'

/** The name of a template. */
const templateName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,62}$/, 'must be a lower-case letter, then at most 62 letters, digits or -')

/** A semantic version without pre-release and build parts: a template is released or it is not. */
const version = z
  .string()
  .regex(/^(0|[1-9]\d{0,8})(\.(0|[1-9]\d{0,8})){2}$/, 'must be a version such as 1.4.0')

const parameterName = z
  .string()
  .regex(/^[a-z][A-Za-z0-9]{0,30}$/, 'must be a lower-case letter, then at most 30 letters or digits')

const parameterValue = z.union([z.string().max(65_536), z.number(), z.boolean()])

/** What a declaration of a VM says to be made from a template; what it says itself stands before what the template says. */
export const chosenTemplateSchema = z
  .strictObject({
    name: templateName.describe('The name of the template; garrison template list shows them.'),
    version: version
      .optional()
      .describe('This version and no other. Default: the newest, whose version each VM remembers.'),
    parameters: z
      .record(parameterName, parameterValue)
      .default({})
      .describe('Values for its parameters; garrison template show NAME explains each.'),
  })
  .describe('The template that the VM is made from.')

/** A chosen template, after defaults. Where a document was read with its templates, `version` is always there. */
export type ChosenTemplate = z.output<typeof chosenTemplateSchema>
