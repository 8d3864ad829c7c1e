ALTER TABLE "node" ADD COLUMN "api_url" text;--> statement-breakpoint
ALTER TABLE "node" ADD COLUMN "api_certificate" text;--> statement-breakpoint
ALTER TABLE "node" ADD COLUMN "api_mark" text;