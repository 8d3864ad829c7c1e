// How the console writes pages: preact through tagged templates, so that Node can serve the source as it is.
// Every text on its way to the page passes the filter that terminals and logs have (recording/inert.ts):
// escape sequences, turned reading directions and what cannot be seen become visible. Nobody has to think of
// it, and markup in a text is text: nothing here makes elements from strings.
import htm from 'htm'
import { h } from 'preact'
import type { ComponentType, VNode } from 'preact'
import { inert } from '../recording/inert.ts'

export type View = VNode

/** Whatever may stand between two tags. */
export type Content = unknown

function harmless(child: unknown): unknown {
  if (typeof child === 'string') return inert(child)
  return Array.isArray(child) ? child.map(harmless) : child
}

function element(
  type: string | ComponentType, props: Record<string, unknown> | null, ...children: unknown[]
): VNode {
  return h(type as string, props, ...children.map(harmless) as VNode[])
}

export const html = htm.bind(element) as (strings: TemplateStringsArray, ...values: unknown[]) => VNode
