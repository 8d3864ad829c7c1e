// Names for what is in the API's answers, for programs in TypeScript that speak to it (the command line tool,
// the console) and hand such things on; what a route answers is in table.ts. Taken from the schemas of
// shapes.ts, so that they cannot differ. Types only: importing this loads nothing.
import type { z } from 'zod'
import type { errorShape } from './openapi.ts'
import type * as shapes from './shapes.ts'

export type AppliedJson = z.output<typeof shapes.appliedShape>
export type ApplicationTokenJson = z.output<typeof shapes.applicationTokenShape>
export type AuditJson = z.output<typeof shapes.auditShape>
export type AuditVerifiedJson = z.output<typeof shapes.auditVerifiedShape>
export type ErrorJson = z.output<typeof errorShape>['error']
export type DoorsJson = z.output<typeof shapes.doorsShape>
export type CallerJson = z.output<typeof shapes.callerShape>
export type CheckJson = z.output<typeof shapes.checkShape>
export type ExplainedJson = z.output<typeof shapes.explainedShape>
export type FreshApplicationTokenJson = z.output<typeof shapes.freshApplicationTokenShape>
export type IssuedJson = z.output<typeof shapes.issuedShape>
export type LeaseEventJson = z.output<typeof shapes.leaseEventShape>
export type LeaseJson = z.output<typeof shapes.leaseShape>
export type OrphansJson = z.output<typeof shapes.orphansShape>
export type PluginJson = z.output<typeof shapes.pluginShape>
export type PieceJson = z.output<typeof shapes.pieceShape>
export type PlanJson = z.output<typeof shapes.planShape>
export type ProofJson = z.output<typeof shapes.proofShape>
export type ProfileJson = z.output<typeof shapes.profileShape>
export type RequestJson = z.output<typeof shapes.requestShape>
export type ReceiptJson = z.output<typeof shapes.receiptShape>
export type ResourceJson = z.output<typeof shapes.resourceShape>
export type ComparedJson = z.output<typeof shapes.comparedShape>
export type ReadingJson = z.output<typeof shapes.readingShape>
export type SecondFactorJson = z.output<typeof shapes.secondFactorShape>
export type SecretJson = z.output<typeof shapes.secretShape>
export type SecretVersionJson = z.output<typeof shapes.versionShape>
export type SessionJson = z.output<typeof shapes.sessionShape>
export type TargetHealthJson = z.output<typeof shapes.targetHealthShape>
export type TemplateBodyJson = z.output<typeof shapes.templateBodyShape>
export type TemplateJson = z.output<typeof shapes.templateShape>
export type TicketJson = z.output<typeof shapes.ticketShape>
export type VerifiedJson = z.output<typeof shapes.verifiedShape>
