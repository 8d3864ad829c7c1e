CREATE TABLE "access_request" (
	"id" text PRIMARY KEY NOT NULL,
	"user_name" text NOT NULL,
	"credential" text NOT NULL,
	"grant_name" text NOT NULL,
	"reason" text,
	"emergency" boolean DEFAULT false NOT NULL,
	"state" text NOT NULL,
	"valid_for_seconds" integer NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"expires_at" timestamp (3) with time zone NOT NULL,
	"valid_until" timestamp (3) with time zone,
	"reviewed_at" timestamp (3) with time zone
);
--> statement-breakpoint
CREATE TABLE "request_decision" (
	"request" text NOT NULL,
	"by_name" text NOT NULL,
	"verdict" text NOT NULL,
	"reason" text,
	"at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "request_decision_request_by_name_verdict_pk" PRIMARY KEY("request","by_name","verdict")
);
--> statement-breakpoint
ALTER TABLE "request_decision" ADD CONSTRAINT "request_decision_request_access_request_id_fk" FOREIGN KEY ("request") REFERENCES "public"."access_request"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE UNIQUE INDEX "access_request_pending" ON "access_request" USING btree ("user_name","grant_name","credential") WHERE state = 'pending';--> statement-breakpoint
CREATE INDEX "access_request_user" ON "access_request" USING btree ("user_name","valid_until");--> statement-breakpoint
CREATE INDEX "access_request_created" ON "access_request" USING btree ("created_at","id");