CREATE TABLE "account" (
	"id" text PRIMARY KEY NOT NULL,
	"target" text NOT NULL,
	"name" text NOT NULL,
	"kind" text NOT NULL,
	"credential" text NOT NULL,
	"state" text NOT NULL,
	"epoch" integer DEFAULT 0 NOT NULL,
	"claimed_by" text,
	"next_at" timestamp (3) with time zone,
	"verify_left" integer DEFAULT 0 NOT NULL,
	"attempts" integer DEFAULT 0 NOT NULL,
	"last_error" text,
	"spec" jsonb NOT NULL,
	"secret" text,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"active_at" timestamp (3) with time zone,
	"ended_at" timestamp (3) with time zone
);
--> statement-breakpoint
CREATE TABLE "api_token" (
	"hash" text PRIMARY KEY NOT NULL,
	"user_name" text NOT NULL,
	"roles" jsonb NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"expires_at" timestamp (3) with time zone NOT NULL,
	"one_time" boolean DEFAULT false NOT NULL
);
--> statement-breakpoint
CREATE TABLE "audit_chain" (
	"chain" text PRIMARY KEY NOT NULL,
	"seq" bigint NOT NULL,
	"hash" text NOT NULL,
	"signed_seq" bigint DEFAULT 0 NOT NULL
);
--> statement-breakpoint
CREATE TABLE "audit_checkpoint" (
	"seq" bigint PRIMARY KEY NOT NULL,
	"body" jsonb NOT NULL,
	"key_id" text NOT NULL,
	"signature" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "audit_event" (
	"chain" text NOT NULL,
	"seq" bigint NOT NULL,
	"at" text NOT NULL,
	"kind" text NOT NULL,
	"actor" text NOT NULL,
	"subject" text NOT NULL,
	"detail" jsonb NOT NULL,
	"prev" text NOT NULL,
	"hash" text NOT NULL,
	CONSTRAINT "audit_event_chain_seq_pk" PRIMARY KEY("chain","seq")
);
--> statement-breakpoint
CREATE TABLE "hold" (
	"id" text PRIMARY KEY NOT NULL,
	"account" text NOT NULL,
	"name" text NOT NULL,
	"owner_kind" text NOT NULL,
	"owner" text NOT NULL,
	"node" text NOT NULL,
	"boot" text NOT NULL,
	"state" text NOT NULL,
	"issued_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"expires_at" timestamp (3) with time zone NOT NULL,
	"max_at" timestamp (3) with time zone NOT NULL,
	"renewals" integer DEFAULT 0 NOT NULL,
	"ended_at" timestamp (3) with time zone
);
--> statement-breakpoint
CREATE TABLE "lease_event" (
	"id" bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "lease_event_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"account" text NOT NULL,
	"hold" text,
	"at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"kind" text NOT NULL,
	"actor" text NOT NULL,
	"detail" jsonb DEFAULT '{}'::jsonb NOT NULL
);
--> statement-breakpoint
CREATE TABLE "node" (
	"id" text PRIMARY KEY NOT NULL,
	"boot" text NOT NULL,
	"beat_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "receipt" (
	"id" text PRIMARY KEY NOT NULL,
	"account" text NOT NULL,
	"session" text,
	"body" jsonb NOT NULL,
	"key_id" text NOT NULL,
	"signature" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "resource" (
	"kind" text NOT NULL,
	"name" text NOT NULL,
	"spec" jsonb NOT NULL,
	"version" integer DEFAULT 1 NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"updated_by" text NOT NULL,
	CONSTRAINT "resource_kind_name_pk" PRIMARY KEY("kind","name")
);
--> statement-breakpoint
CREATE TABLE "secret_value" (
	"id" text PRIMARY KEY NOT NULL,
	"kind" text NOT NULL,
	"key_id" text NOT NULL,
	"sealed" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "session" (
	"id" text PRIMARY KEY NOT NULL,
	"user_name" text NOT NULL,
	"credential" text NOT NULL,
	"target" text NOT NULL,
	"protocol" text NOT NULL,
	"grant_name" text NOT NULL,
	"address" text NOT NULL,
	"database" text,
	"node" text NOT NULL,
	"boot" text NOT NULL,
	"status" text NOT NULL,
	"account" text,
	"account_name" text,
	"started_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"expires_at" timestamp (3) with time zone,
	"ended_at" timestamp (3) with time zone,
	"reason" text,
	"recording" text,
	"recording_head" text,
	"recording_bytes" bigint
);
--> statement-breakpoint
CREATE TABLE "setting" (
	"key" text PRIMARY KEY NOT NULL,
	"value" jsonb NOT NULL
);
--> statement-breakpoint
CREATE TABLE "template" (
	"id" text NOT NULL,
	"version" integer NOT NULL,
	"plugin" text NOT NULL,
	"action" text NOT NULL,
	"body" text NOT NULL,
	"sha256" text NOT NULL,
	"shipped" boolean DEFAULT false NOT NULL,
	"active" boolean DEFAULT true NOT NULL,
	"author" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "template_id_version_pk" PRIMARY KEY("id","version")
);
--> statement-breakpoint
ALTER TABLE "hold" ADD CONSTRAINT "hold_account_account_id_fk" FOREIGN KEY ("account") REFERENCES "public"."account"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE UNIQUE INDEX "account_target_name" ON "account" USING btree ("target","name");--> statement-breakpoint
CREATE INDEX "account_due" ON "account" USING btree ("next_at") WHERE next_at is not null;--> statement-breakpoint
CREATE INDEX "account_state" ON "account" USING btree ("state");--> statement-breakpoint
CREATE INDEX "audit_event_at" ON "audit_event" USING btree ("at");--> statement-breakpoint
CREATE INDEX "audit_event_subject" ON "audit_event" USING btree ("subject");--> statement-breakpoint
CREATE INDEX "hold_account" ON "hold" USING btree ("account");--> statement-breakpoint
CREATE INDEX "hold_live_expiry" ON "hold" USING btree ("expires_at") WHERE state in ('pending', 'active');--> statement-breakpoint
CREATE INDEX "hold_node" ON "hold" USING btree ("node","boot") WHERE state in ('pending', 'active');--> statement-breakpoint
CREATE INDEX "hold_owner" ON "hold" USING btree ("owner_kind","owner");--> statement-breakpoint
CREATE INDEX "lease_event_account" ON "lease_event" USING btree ("account");--> statement-breakpoint
CREATE INDEX "lease_event_hold" ON "lease_event" USING btree ("hold");--> statement-breakpoint
CREATE INDEX "receipt_account" ON "receipt" USING btree ("account");--> statement-breakpoint
CREATE INDEX "receipt_session" ON "receipt" USING btree ("session");--> statement-breakpoint
CREATE INDEX "secret_value_key" ON "secret_value" USING btree ("key_id");--> statement-breakpoint
CREATE INDEX "session_started" ON "session" USING btree ("started_at","id");--> statement-breakpoint
CREATE INDEX "session_user" ON "session" USING btree ("user_name","started_at");--> statement-breakpoint
CREATE INDEX "session_target" ON "session" USING btree ("target","started_at");--> statement-breakpoint
CREATE INDEX "session_live" ON "session" USING btree ("node","boot") WHERE status in ('opening', 'live');