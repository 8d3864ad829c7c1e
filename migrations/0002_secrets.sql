CREATE TABLE "application_token" (
	"id" text PRIMARY KEY NOT NULL,
	"hash" text NOT NULL,
	"application" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"created_by" text NOT NULL,
	"expires_at" timestamp (3) with time zone NOT NULL,
	"last_used_at" timestamp (3) with time zone,
	CONSTRAINT "application_token_hash_unique" UNIQUE("hash")
);
--> statement-breakpoint
CREATE TABLE "credential_reader" (
	"path" text NOT NULL,
	"reader" text NOT NULL,
	"version" integer NOT NULL,
	"read_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "credential_reader_path_reader_pk" PRIMARY KEY("path","reader")
);
--> statement-breakpoint
CREATE TABLE "renewed_credential" (
	"path" text NOT NULL,
	"version" integer NOT NULL,
	"state" text NOT NULL,
	"lease" text,
	"secret" text,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"retire_at" timestamp (3) with time zone,
	"retired_at" timestamp (3) with time zone,
	"alarmed_at" timestamp (3) with time zone,
	CONSTRAINT "renewed_credential_path_version_pk" PRIMARY KEY("path","version")
);
--> statement-breakpoint
CREATE INDEX "application_token_application" ON "application_token" USING btree ("application");--> statement-breakpoint
CREATE INDEX "renewed_credential_alive" ON "renewed_credential" USING btree ("path") WHERE state in ('pending', 'current', 'retiring');