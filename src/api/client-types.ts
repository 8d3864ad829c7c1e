// The types of the API's answers, for programs in TypeScript that speak to it (the command line tool, the
// console): taken from the schemas of shapes.ts, so that they cannot differ. Types only: importing this
// loads nothing.
import type { z } from 'zod'
import type * as shapes from './shapes.ts'

export type AppliedJson = z.output<typeof shapes.appliedShape>
export type ApplicationTokenJson = z.output<typeof shapes.applicationTokenShape>
export type AuditJson = z.output<typeof shapes.auditShape>
export type AuditVerifiedJson = z.output<typeof shapes.auditVerifiedShape>
export type DoorsJson = z.output<typeof shapes.doorsShape>
export type UsersJson = z.output<typeof shapes.usersShape>
export type SshDoorJson = z.output<typeof shapes.sshDoorShape>
export type CallerJson = z.output<typeof shapes.callerShape>
export type BeganJson = z.output<typeof shapes.beganShape>
export type CheckJson = z.output<typeof shapes.checkShape>
export type EnrolledJson = z.output<typeof shapes.enrolledShape>
export type ExplainedJson = z.output<typeof shapes.explainedShape>
export type FreshApplicationTokenJson = z.output<typeof shapes.freshApplicationTokenShape>
export type HitJson = z.output<typeof shapes.hitShape>
export type IssuedJson = z.output<typeof shapes.issuedShape>
export type LeaseEventJson = z.output<typeof shapes.leaseEventShape>
export type LeaseJson = z.output<typeof shapes.leaseShape>
export type LoginRequestJson = z.output<typeof shapes.loginRequestShape>
export type OrphansJson = z.output<typeof shapes.orphansShape>
export type PasskeysJson = z.output<typeof shapes.passkeysShape>
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
export type SecretJson = z.output<typeof shapes.secretShape>
export type SecretVersionJson = z.output<typeof shapes.versionShape>
export type SessionJson = z.output<typeof shapes.sessionShape>
export type TargetHealthJson = z.output<typeof shapes.targetHealthShape>
export type TemplateBodyJson = z.output<typeof shapes.templateBodyShape>
export type TemplateJson = z.output<typeof shapes.templateShape>
export type TicketJson = z.output<typeof shapes.ticketShape>
export type UnansweredJson = z.output<typeof shapes.unansweredShape>
export type WaysJson = z.output<typeof shapes.waysShape>
export type VerifiedJson = z.output<typeof shapes.verifiedShape>
