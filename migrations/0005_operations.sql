CREATE TABLE "audit_position" (
	"receiver" text NOT NULL,
	"chain" text NOT NULL,
	"seq" bigint NOT NULL,
	CONSTRAINT "audit_position_receiver_chain_pk" PRIMARY KEY("receiver","chain")
);
--> statement-breakpoint
CREATE TABLE "audit_receiver" (
	"name" text PRIMARY KEY NOT NULL,
	"claimed_by" text,
	"claimed_until" timestamp (3) with time zone,
	"failing_since" timestamp (3) with time zone,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "idempotency_key" (
	"principal" text NOT NULL,
	"key" text NOT NULL,
	"request" text NOT NULL,
	"state" text NOT NULL,
	"node" text NOT NULL,
	"boot" text NOT NULL,
	"said" text,
	"answer" text,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"answered_at" timestamp (3) with time zone,
	CONSTRAINT "idempotency_key_principal_key_pk" PRIMARY KEY("principal","key")
);
--> statement-breakpoint
CREATE INDEX "idempotency_key_created" ON "idempotency_key" USING btree ("created_at");--> statement-breakpoint
CREATE INDEX "idempotency_key_answer" ON "idempotency_key" USING btree ("answered_at") WHERE answer is not null;